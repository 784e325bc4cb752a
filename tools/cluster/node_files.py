"""What containerd, the kubelet and the pods' network are told."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from images import IMAGE
from layout import BIN, BRIDGE, HOST, NODE, SUBNET, Layout

CNI_PLUGINS = Path("/usr/lib/cni")
CGROUP = "defectbench"
"""All pods' cgroups lie below it."""
DISK_SIGNALS = ("nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree")
SOCKET = "/run/containerd/containerd.sock"

CONTAINERD = """\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
address = "{socket}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{sandbox}"

[plugins."io.containerd.cri.v1.runtime"]
# Without it every sandbox fails where the machine does not allow lower scores.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{plugins}"]
conf_dir = "{network}"
"""


def snapshotter(directory: Path) -> str:
    """overlayfs, but native where the directory is itself on an overlay: those cannot be stacked."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True).stdout
    return "native" if "overlay" in kind else "overlayfs"


def network() -> dict[str, object]:
    """Pods get an address on the bridge and reach this machine by it: no forwarding, no iptables rule."""
    addresses = {
        "type": "host-local",
        "dataDir": "/var/lib/cni/networks",
        "ranges": [[{"subnet": SUBNET, "gateway": HOST}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugin = {"type": "bridge", "bridge": BRIDGE, "isGateway": False, "ipMasq": False, "ipam": addresses}
    return {"cniVersion": "1.0.0", "name": "defectbench", "plugins": [plugin]}


def kubelet(layout: Layout) -> dict[str, object]:
    """The kubelet's configuration; cgroups of either version, and limits that a full disk does not trip."""
    keys, ports = layout.certificates, layout.ports()
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": HOST,
        "port": ports["kubelet"],
        "healthzPort": ports["kubelet-health"],
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(keys / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(keys / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(keys / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"} | dict.fromkeys(DISK_SIGNALS, "1%"),
    }


def write(layout: Layout) -> None:
    """Write the files below the node's directory."""
    directory = layout.node / "network"
    directory.mkdir(exist_ok=True)
    (directory / "10-defectbench.conflist").write_text(json.dumps(network(), indent=2))
    (layout.node / "kubelet.json").write_text(json.dumps(kubelet(layout), indent=2))
    words = {"socket": SOCKET, "sandbox": IMAGE, "plugins": CNI_PLUGINS, "network": directory}
    text = CONTAINERD.format(snapshotter=snapshotter(layout.node), **words)
    (layout.node / "containerd.toml").write_text(text)


def commands(layout: Layout) -> list[list[str]]:
    """What the node's first process runs."""
    flags = (
        f"--config={layout.node / 'kubelet.json'}",
        f"--kubeconfig={layout.kubeconfig('kubelet')}",
        f"--hostname-override={NODE}",
        f"--node-ip={HOST}",
    )
    return [
        [str(BIN / "containerd"), f"--config={layout.node / 'containerd.toml'}"],
        [str(BIN / "kubelet"), *flags],
    ]
