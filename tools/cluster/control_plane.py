"""etcd, API server, controller manager and scheduler: their commands, and starting them in order."""

from __future__ import annotations

import socket

import kubeconfigs
from kubectl import kubectl
from layout import BIN, HOST, Layout
from services import Service, wait_ready

BINARIES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


def etcd(layout: Layout) -> Service:
    """The store; what it holds may be lost with the machine, so it does not wait for the disk."""
    ports, keys = layout.ports(), layout.certificates
    client, peer = (f"://127.0.0.1:{ports[name]}" for name in ("etcd", "etcd-peer"))
    flags = (
        f"--data-dir={layout.root / 'etcd'}",
        f"--listen-client-urls=https{client}",
        f"--advertise-client-urls=https{client}",
        f"--listen-peer-urls=http{peer}",
        f"--initial-advertise-peer-urls=http{peer}",
        f"--initial-cluster=default=http{peer}",
        f"--cert-file={keys / 'etcd.crt'}",
        f"--key-file={keys / 'etcd.key'}",
        f"--trusted-ca-file={keys / 'ca.crt'}",
        "--client-cert-auth",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    return Service("etcd", (str(BIN / "etcd"), *flags), layout)


def api_server(layout: Layout) -> Service:
    """The API server: TLS, node and role authorisation, admission as Kubernetes has it by default."""
    ports, keys = layout.ports(), layout.certificates
    flags = (
        f"--secure-port={ports['api']}",
        "--bind-address=127.0.0.1",
        # Never looked up: a machine without a network has none.
        f"--advertise-address={HOST}",
        "--endpoint-reconciler-type=none",
        f"--etcd-servers=https://127.0.0.1:{ports['etcd']}",
        f"--etcd-cafile={keys / 'ca.crt'}",
        f"--etcd-certfile={keys / 'etcd-client.crt'}",
        f"--etcd-keyfile={keys / 'etcd-client.key'}",
        f"--tls-cert-file={keys / 'api.crt'}",
        f"--tls-private-key-file={keys / 'api.key'}",
        f"--client-ca-file={keys / 'ca.crt'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={keys / 'service-accounts.key'}",
        f"--service-account-signing-key-file={keys / 'service-accounts.key'}",
        f"--kubelet-certificate-authority={keys / 'ca.crt'}",
        f"--kubelet-client-certificate={keys / 'kubelet-client.crt'}",
        f"--kubelet-client-key={keys / 'kubelet-client.key'}",
        # Otherwise logs and exec look the node's name up.
        "--kubelet-preferred-address-types=InternalIP",
        "--service-cluster-ip-range=198.18.65.0/24",
    )
    return Service("kube-apiserver", (str(BIN / "kube-apiserver"), *flags), layout)


def controller_manager(layout: Layout) -> Service:
    """All controllers, each under its own account."""
    keys, config = layout.certificates, layout.kubeconfig("controller-manager")
    flags = (
        f"--kubeconfig={config}",
        f"--root-ca-file={keys / 'ca.crt'}",
        f"--service-account-private-key-file={keys / 'service-accounts.key'}",
        "--use-service-account-credentials",
        f"--flex-volume-plugin-dir={layout.root / 'volume-plugins'}",
        "--leader-elect=false",
        "--secure-port=0",
    )
    return Service("kube-controller-manager", (str(BIN / "kube-controller-manager"), *flags), layout)


def scheduler(layout: Layout) -> Service:
    """The default scheduler."""
    flags = (f"--kubeconfig={layout.kubeconfig('scheduler')}", "--leader-elect=false", "--secure-port=0")
    return Service("kube-scheduler", (str(BIN / "kube-scheduler"), *flags), layout)


def services(layout: Layout) -> list[Service]:
    """All of them, in the order in which they are started."""
    return [etcd(layout), api_server(layout), controller_manager(layout), scheduler(layout)]


def answers(port: int) -> bool:
    """Tell whether somebody listens on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def is_ready(layout: Layout) -> bool:
    """Tell whether the API server says that it is ready."""
    return kubectl(layout, "get", "--raw", "/readyz", "--request-timeout=5s", check=False) == "ok"


def start(layout: Layout) -> list[str]:
    """Start what does not run; return the names of what had to be."""
    for name in ("admin", "controller-manager", "scheduler", "kubelet"):
        kubeconfigs.with_certificate(layout, name)
    store, api, *others = services(layout)
    ports = layout.ports()
    started = [store.name] if store.start() else []
    wait_ready(store, lambda: answers(ports["etcd"]))
    started += [api.name] if api.start() else []
    wait_ready(api, lambda: answers(ports["api"]) and is_ready(layout))
    return started + [service.name for service in others if service.start()]
