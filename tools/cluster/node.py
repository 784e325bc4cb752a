"""The node: containerd and kubelet as root on Linux, apart from the machine by mount and pid namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cgroups
import node_files
from images import BUSYBOX, write_busybox
from layout import BIN, BRIDGE, BRIDGE_ADDRESS, HOST, SUBNET, Layout
from services import Service, clean_environment, wait, wait_ready

PARTS = tuple(str(BIN / name) for name in ("containerd", "containerd-shim-runc-v2", "ctr", "kubelet"))
COMMANDS = ("ip", "mount", "nsenter", "runc", "unshare", str(BUSYBOX), *PARTS)
PLUGINS = tuple(str(node_files.CNI_PLUGINS / name) for name in ("bridge", "host-local", "loopback"))
BINDS = (
    "/run/containerd",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)
"""Where containerd and kubelet write; short, because a socket's path has at most 107 characters."""

PROGRAM = str(Path(__file__).with_name("node_init.py"))


def obstacle() -> str:
    """Why this machine can have no node; empty when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "containerd and kubelet need Linux and root"
    path = clean_environment()["PATH"]
    missing = [command for command in (*COMMANDS, *PLUGINS) if not shutil.which(command, path=path)]
    if missing:
        return f"missing: {', '.join(missing)}; run: make parts"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode:
        return "this machine allows no mount and pid namespaces"
    return cgroups.obstacle()


def service(layout: Layout) -> Service:
    """The first process of the node, which starts the others."""
    unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "slave")
    return Service("node", (*unshare, sys.executable, PROGRAM, str(plan_of(layout))), layout)


def plan_of(layout: Layout) -> Path:
    """What the node's first process reads."""
    return layout.node / "plan.json"


def start(layout: Layout) -> list[str]:
    """Start the node unless it runs; return the names of what had to be started."""
    node = service(layout)
    if node.pid():
        return []
    layout.node.mkdir(exist_ok=True)
    node_files.write(layout)
    binds = {str(make(layout.node / target.replace("/", "-").lstrip("-"))): target for target in BINDS}
    services = node_files.commands(layout)
    plan_of(layout).write_text(json.dumps({"binds": binds, "services": services}))
    make_bridge(layout)
    make_mount_points(layout)
    cgroups.make()
    node.start()
    wait_ready(node, lambda: ctr(layout, "version").returncode == 0)
    archive = layout.node / "busybox.tar"
    write_busybox(archive)
    import_image(layout, archive)
    return [node.name, "containerd", "kubelet"]


def make(directory: Path) -> Path:
    """Make a directory; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def make_mount_points(layout: Layout) -> None:
    """Make the directories that are bound over, and note which were not there."""
    note = layout.node / "made.json"
    made = json.loads(note.read_text()) if note.is_file() else []
    made += [target for target in BINDS if not Path(target).is_dir()]
    note.write_text(json.dumps(made))
    for target in BINDS:
        make(Path(target))


def make_bridge(layout: Layout) -> None:
    """Make the bridge that pods hang on; this machine's address for them is there before the first pod."""
    note = layout.node / "bridge"
    if not note.exists():
        undo_shared()
    note.touch()
    ip("link", "add", BRIDGE, "type", "bridge", check=False)
    ip("address", "replace", f"{HOST}/{SUBNET.partition('/')[2]}", "dev", BRIDGE)
    # Else it takes that of a pod, and another when that pod goes: the rest then loses us for half a minute.
    ip("link", "set", BRIDGE, "address", BRIDGE_ADDRESS, "up")


def undo_shared() -> None:
    """Undo what all clusters of this machine share; one that was killed as a whole leaves it."""
    wait(lambda: not ip("-o", "link", "show", "master", BRIDGE, check=False), 10)
    ip("link", "delete", BRIDGE, check=False)
    # The kernel needs a moment to empty them.
    wait(cgroups.remove, 10)


def rival(layout: Layout) -> str:
    """The first process of another test cluster's node on this machine; empty when there is none."""
    mark = f"/{Path(PROGRAM).name} "
    for pid, command in processes().items():
        _, found, plan = command.partition(mark)
        if found and not command.startswith("unshare") and plan != str(plan_of(layout)):
            return f"process {pid}, {command}"
    return ""


def has_bridge() -> bool:
    """Tell whether the bridge is there."""
    return bool(ip("-o", "link", "show", BRIDGE, check=False))


def ip(*words: str, check: bool = True) -> str:
    """Return what ``ip`` prints."""
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check).stdout


def inside(layout: Layout, *command: str) -> list[str]:
    """The command that runs ``command`` with the node's view of the file system."""
    first = init_pid(layout)
    if not first:
        raise SystemExit("no node runs; run: make cluster")
    return ["nsenter", f"--target={first}", "--mount", *command]


def init_pid(layout: Layout) -> int | None:
    """The node's first process, as this machine numbers it: the child of ``unshare``, of whichever Python."""
    outer = service(layout).pid()
    query = ["ps", "-o", "pid=", "--ppid", str(outer)]
    found = subprocess.run(query, capture_output=True, text=True).stdout.split() if outer else []
    return int(found[0]) if found else None


def kubelet_pid(layout: Layout) -> int | None:
    """The kubelet, as this machine numbers it."""
    start = f"{BIN / 'kubelet'} --config={layout.node}/"
    return next((pid for pid, command in processes().items() if command.startswith(start)), None)


def processes() -> dict[int, str]:
    """All processes of this machine with their command lines."""
    query = ["ps", "-axww", "-o", "pid=", "-o", "command="]
    found = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    rows = (line.strip().partition(" ") for line in found.splitlines())
    return {int(pid): command.strip() for pid, _, command in rows}


def ctr(layout: Layout, *words: str, capture: bool = True) -> subprocess.CompletedProcess[str]:
    """Run containerd's command-line client in the node."""
    client = (str(BIN / "ctr"), "--namespace=k8s.io", *words)
    with contextlib.suppress(SystemExit):
        return subprocess.run(inside(layout, *client), capture_output=capture, text=True)
    return subprocess.CompletedProcess(client, 1, "", "no node runs; run: make cluster")


def import_image(layout: Layout, archive: Path) -> None:
    """Bring a Docker or OCI archive's images onto the node."""
    done = ctr(layout, "images", "import", str(archive.resolve()))
    if done.returncode:
        raise SystemExit(f"{archive} was not imported: {done.stderr.strip()}")


def restart_kubelet(layout: Layout, sign: signal.Signals = signal.SIGKILL) -> None:
    """End the kubelet; return when the node's first process has started the next one."""
    old = kubelet_pid(layout)
    if old is None:
        raise SystemExit("no kubelet runs; run: make cluster")
    os.kill(old, sign)
    if not wait(lambda: kubelet_pid(layout) not in (None, old), 30):
        raise SystemExit("the kubelet was not started again")


def stop(layout: Layout) -> None:
    """End all processes of the node, and undo what it changed on the machine."""
    service(layout).stop(signal.SIGKILL)
    if not rival(layout):
        undo_shared()
    note = layout.node / "made.json"
    for target in json.loads(note.read_text()) if note.is_file() else []:
        with contextlib.suppress(OSError):
            Path(target).rmdir()


def leftovers(layout: Layout) -> list[str]:
    """What a stopped node must not leave: processes, mounts, the bridge, cgroups."""
    ours = [pid for pid, text in processes().items() if text.startswith(PARTS) and f"{layout.root}/" in text]
    left = [f"process {pid}" for pid in ours]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    left += [f"mount {line.split()[1]}" for line in mounts if f" {layout.root}/" in line]
    if rival(layout):
        return left
    left += [f"interface {BRIDGE}"] if has_bridge() else []
    return left + [f"cgroup {path}" for path in cgroups.found()]
