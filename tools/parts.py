"""Build the real servers that tests use, from the Go modules beside this file; only what has changed.

``python tools/parts.py [GROUP...]``, Go 1.26; without a group, all that this machine can use but ``kwok``.
As root on Debian it also installs the packages that the parts call.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
BIN = TOOLS.parent / ".parts" / "bin"


@dataclass(frozen=True)
class Group:
    """A tool module, in the folder ``name``; ``variable`` is where ``module``'s version is linked in."""

    name: str
    module: str
    commands: tuple[str, ...]
    variable: str = ""
    tags: str = ""
    linux_only: tuple[str, ...] = ()
    default: bool = True

    @property
    def wanted(self) -> tuple[str, ...]:
        """The commands that this machine can use."""
        return tuple(c for c in self.commands if sys.platform == "linux" or c not in self.linux_only)


CONTAINERD = ("cmd/containerd", "cmd/containerd-shim-runc-v2", "cmd/ctr")
KUBERNETES = ("cmd/kube-apiserver", "cmd/kube-controller-manager", "cmd/kube-scheduler", "cmd/kubectl")

GROUPS = (
    Group("versitygw", "github.com/versity/versitygw", ("cmd/versitygw",)),
    Group("helm", "helm.sh/helm/v4", ("cmd/helm",), "helm.sh/helm/v4/internal/version.version"),
    Group("etcd", "go.etcd.io/etcd/server/v3", ("",)),
    Group(
        "kubernetes",
        "k8s.io/kubernetes",
        (*KUBERNETES, "cmd/kubelet"),
        "k8s.io/component-base/version.gitVersion",
        tags="grpcnotrace",
        linux_only=("cmd/kubelet",),
    ),
    Group(
        "containerd",
        "github.com/containerd/containerd/v2",
        CONTAINERD,
        "github.com/containerd/containerd/v2/version.Version",
        linux_only=CONTAINERD,
    ),
    Group("kwok", "sigs.k8s.io/kwok", ("cmd/kwok",), "sigs.k8s.io/kwok/pkg/consts.Version", default=False),
)

PACKAGES = {
    "chromium": "chromium",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "/bin/busybox": "busybox-static",
}
"""A command or file that a part calls -> the Debian package that brings it."""


def run(*command: str, cwd: Path = TOOLS, **environment: str) -> str:
    """Return a command's standard output; its errors go where ours go."""
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {' '.join(command)}")
    return done.stdout


def version(group: Group) -> str:
    """The version of the group's module that its go.mod names."""
    return run("go", "list", "-m", "-f", "{{.Version}}", group.module, cwd=TOOLS / group.name).strip()


def binary(group: Group, command: str) -> Path:
    """Where a command's binary goes; a module that is itself a command is called as its group."""
    return BIN / (Path(command).name or group.name)


def digest(group: Group) -> str:
    """What a group's binaries are made from: by content, because a checkout touches every file."""
    files = [(TOOLS / group.name / name).read_text() for name in ("go.mod", "go.sum")]
    return hashlib.sha256(json.dumps([files, group.wanted, group.variable, group.tags]).encode()).hexdigest()


def is_built(group: Group) -> bool:
    """Tell whether all binaries are there, from these very sources."""
    stamp = BIN / f".{group.name}"
    same = stamp.is_file() and stamp.read_text() == digest(group)
    return same and all(binary(group, command).is_file() for command in group.wanted)


def build(group: Group) -> None:
    """Build all of a group's binaries in one go; the stamp is written last."""
    flags = "-s -w"
    if group.variable:
        flags += f" -X {group.variable}={version(group)}"
    packages = ["/".join(filter(None, (group.module, command))) for command in group.wanted]
    output = str(binary(group, group.wanted[0])) if len(packages) == 1 else f"{BIN}/"
    command = ["go", "build", "-tags", group.tags, "-ldflags", flags, "-o", output, *packages]
    run(*command, cwd=TOOLS / group.name, CGO_ENABLED="0")
    (BIN / f".{group.name}").write_text(digest(group))


def bring(group: Group) -> None:
    """Build a group unless it is there, and say which."""
    if not group.wanted:
        print(f"{group.name}: needs Linux, left out", flush=True)
    elif is_built(group):
        print(f"{group.name}: as built before", flush=True)
    else:
        print(f"{group.name}: building {', '.join(binary(group, c).name for c in group.wanted)}", flush=True)
        start = time.monotonic()
        build(group)
        print(f"{group.name}: built in {time.monotonic() - start:.0f} s", flush=True)


def install_packages() -> None:
    """Install the missing Debian packages, as root where apt is; elsewhere name them."""
    missing = [package for need, package in PACKAGES.items() if not shutil.which(need)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"not here, tests that need them are skipped: {' '.join(missing)}", flush=True)
        return
    print(f"installing {' '.join(missing)}", flush=True)
    run("apt-get", "update", "-q", DEBIAN_FRONTEND="noninteractive")
    run("apt-get", "install", "-qy", *missing, DEBIAN_FRONTEND="noninteractive")


def main(names: list[str]) -> None:
    """Bring the groups that are named; without names, all default ones and the packages."""
    known = {group.name: group for group in GROUPS}
    for name in names:
        if name not in known:
            sys.exit(f"no part is called {name!r}; there are: {', '.join(known)}")
    if not shutil.which("go"):
        print("make parts needs Go 1.26: https://go.dev/dl", file=sys.stderr)
        sys.exit(69)
    BIN.mkdir(parents=True, exist_ok=True)
    if not names:
        install_packages()
    for group in [known[name] for name in names] or [group for group in GROUPS if group.default]:
        bring(group)


if __name__ == "__main__":
    main(sys.argv[1:])
