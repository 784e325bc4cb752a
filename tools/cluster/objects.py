"""What the cluster holds from the start: a namespace, its submitter, a node with GPUs that are not there."""

from __future__ import annotations

import json

import kubeconfigs
from kubectl import kubectl
from layout import GPU_COUNT, NAMESPACE, NODE, REPOSITORY, Layout
from services import wait

RIGHTS = REPOSITORY / "docs" / "kubernetes-rbac.yaml"
TOKEN_HOURS = 720


def make_submitter(layout: Layout) -> None:
    """Apply the very file that users apply; write the submitter's kubeconfig."""
    kubectl(layout, "apply", "-f", str(RIGHTS))
    token = kubectl(
        layout, "create", "token", "submitter", f"--namespace={NAMESPACE}", f"--duration={TOKEN_HOURS}h"
    )
    kubeconfigs.with_token(layout, "submitter", token)


def wait_for_controllers(layout: Layout) -> None:
    """Wait until pods can be created: the controller manager has made the namespace's default account."""
    account = ("get", "serviceaccount", "default", f"--namespace={NAMESPACE}", "--output=name")
    if not wait(lambda: bool(kubectl(layout, *account, check=False)), 60):
        raise SystemExit(f"the controller manager does nothing; see {layout.logs}")


def last_beat(layout: Layout) -> str:
    """When the kubelet last renewed the node's lease; empty before the first time."""
    lease = ("get", "lease", NODE, "--namespace=kube-node-lease", "--output=jsonpath={.spec.renewTime}")
    return kubectl(layout, *lease, check=False)


def wait_for_node(layout: Layout, since: str = "") -> None:
    """Wait until the kubelet has renewed its lease and the node is ready, then advertise its GPUs."""
    if not wait(lambda: last_beat(layout) not in ("", since), 60):
        raise SystemExit(f"the kubelet does not register; see {layout.logs / 'node.log'}")
    kubectl(layout, "wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=60s")
    advertise_gpus(layout)


def advertise_gpus(layout: Layout) -> None:
    """Advertise extended resources by a patch of the node's status, as Kubernetes documents it."""
    patch = [
        {"op": "add", "path": f"/status/{where}/nvidia.com~1gpu", "value": str(GPU_COUNT)}
        for where in ("capacity", "allocatable")
    ]
    kubectl(
        layout, "patch", "node", NODE, "--subresource=status", "--type=json", f"--patch={json.dumps(patch)}"
    )
