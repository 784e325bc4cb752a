"""Where the test cluster keeps its files, and the ports and addresses that it uses."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = (REPOSITORY / ".parts").resolve()
BIN = PARTS / "bin"

NAMESPACE = "defectbench"
NODE = "defectbench-node"
GPU_COUNT = 2
BRIDGE = "defectbench0"
BRIDGE_ADDRESS = "02:db:00:00:00:01"
"""One machine has one such node: bridge and addresses are fixed."""
SUBNET = "198.18.64.0/24"
HOST = "198.18.64.1"
"""The node's address, and this machine's as pods see it; from a range that no network routes (RFC 2544)."""
PORTS = ("etcd", "etcd-peer", "api", "kubelet", "kubelet-health")


@dataclass(frozen=True)
class Layout:
    """The files below one directory; all of them go with ``make cluster-down``."""

    root: Path = PARTS / "cluster"

    @property
    def certificates(self) -> Path:
        """Keys and what the cluster's authority signed."""
        return self.root / "certificates"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def node(self) -> Path:
        """What containerd and the kubelet read and write."""
        return self.root / "node"

    @property
    def facts(self) -> Path:
        """What tests must know of the cluster, as JSON."""
        return self.root / "cluster.json"

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of a user of the cluster."""
        return self.root / f"{user}.kubeconfig"

    def ports(self) -> dict[str, int]:
        """Each server's port on this machine: chosen free at the first start, then kept."""
        file = self.root / "ports.json"
        if not file.is_file():
            file.write_text(json.dumps(dict(zip(PORTS, free_ports(len(PORTS)), strict=True))))
        ports: dict[str, int] = json.loads(file.read_text())
        return ports

    @property
    def api_url(self) -> str:
        """Where the API server listens, for this machine only."""
        return f"https://127.0.0.1:{self.ports()['api']}"

    def make(self) -> None:
        """Make the directories; keys and tokens lie below, so nobody else may look."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.certificates, self.logs):
            directory.mkdir(exist_ok=True)


def free_ports(count: int) -> list[int]:
    """Return distinct loopback ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
