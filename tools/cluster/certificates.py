"""The cluster's own authority and what it signs, by the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from layout import HOST, NODE, Layout

DAYS = "365"


@dataclass(frozen=True)
class Certificate:
    """One leaf: ``name`` is its file, ``user`` and ``group`` who it is, ``hosts`` where it serves."""

    name: str
    user: str
    group: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """Who it is, as openssl writes it."""
        return (f"/O={self.group}" if self.group else "") + f"/CN={self.user}"

    @property
    def extensions(self) -> str:
        """What it is for, as an openssl extension file."""
        lines = ["basicConstraints=CA:FALSE", "extendedKeyUsage=serverAuth,clientAuth"]
        return "\n".join(lines + ([f"subjectAltName={','.join(self.hosts)}"] if self.hosts else []))


LOCAL = ("DNS:localhost", "IP:127.0.0.1")
LEAVES = (
    Certificate("etcd", "etcd", hosts=LOCAL),
    Certificate("etcd-client", "kube-apiserver"),
    Certificate("api", "kube-apiserver", hosts=(*LOCAL, f"IP:{HOST}", "DNS:kubernetes.default.svc")),
    Certificate("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
    Certificate("kubelet-server", f"system:node:{NODE}", "system:nodes", (f"DNS:{NODE}", f"IP:{HOST}")),
    Certificate("admin", "admin", "system:masters"),
    Certificate("controller-manager", "system:kube-controller-manager"),
    Certificate("scheduler", "system:kube-scheduler"),
    Certificate("kubelet", f"system:node:{NODE}", "system:nodes"),
)


def make_all(layout: Layout) -> None:
    """Make authority, token key and leaves, once."""
    where = layout.certificates
    if (where / "done").is_file():
        return
    new_key(where / "service-accounts.key")
    new_key(where / "ca.key")
    subject = "/CN=defectbench test cluster"
    openssl(
        "req",
        "-x509",
        "-new",
        "-key",
        where / "ca.key",
        "-subj",
        subject,
        "-days",
        DAYS,
        "-out",
        where / "ca.crt",
    )
    for leaf in LEAVES:
        sign(leaf, where)
    (where / "done").touch()


def sign(leaf: Certificate, where: Path) -> None:
    """Write ``<name>.key`` and ``<name>.crt``."""
    key, request, extensions = (where / f"{leaf.name}.{end}" for end in ("key", "csr", "ext"))
    new_key(key)
    extensions.write_text(leaf.extensions)
    openssl("req", "-new", "-key", key, "-subj", leaf.subject, "-out", request)
    authority = ("-CA", where / "ca.crt", "-CAkey", where / "ca.key", "-CAcreateserial")
    output = ("-extfile", extensions, "-days", DAYS, "-out", where / f"{leaf.name}.crt")
    openssl("x509", "-req", "-in", request, *authority, *output)


def new_key(path: Path) -> None:
    """Write a private key that only its owner may read."""
    path.touch(mode=0o600)
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)


def openssl(*words: str | Path) -> None:
    """Run openssl; what it says goes into the error."""
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"openssl {words[0]} failed: {done.stderr.strip()}")
