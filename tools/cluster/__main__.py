"""A whole Kubernetes for tests, from the binaries of ``make parts``. ``python tools/cluster up|down|...``"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import certificates
import control_plane
import kubectl
import node
import objects
from layout import BIN, GPU_COUNT, HOST, NODE, PARTS, Layout
from services import clean_environment


def up(layout: Layout) -> None:
    """Start what does not run, and say what there is."""
    if missing := [name for name in control_plane.BINARIES if not (BIN / name).is_file()]:
        raise SystemExit(f"not built: {', '.join(missing)}; run: make parts")
    obstacle = node.obstacle()
    if not obstacle and (rival := node.rival(layout)):
        raise SystemExit(
            f"another test cluster's node runs here: {rival}\n"
            "a machine has room for one; run make cluster-down where that one is"
        )
    begin = time.monotonic()
    layout.make()
    certificates.make_all(layout)
    started = control_plane.start(layout)
    objects.make_submitter(layout)
    objects.wait_for_controllers(layout)
    if not obstacle:
        started += node.start(layout)
        objects.wait_for_node(layout)
    facts = {"kubelet": not obstacle, "node": NODE, "host": "" if obstacle else HOST}
    layout.facts.write_text(json.dumps(facts))
    say(f"started {', '.join(started)} in {time.monotonic() - begin:.1f} s" if started else "all of it runs")
    say(f"no node, so Jobs are accepted but never run: {obstacle}" if obstacle else node_line())
    say(f"kubeconfigs: {layout.kubeconfig('admin')}, {layout.kubeconfig('submitter')}")


def node_line() -> str:
    """What is to be known of a node."""
    return f"node {NODE} advertises {GPU_COUNT} GPUs; its pods reach this machine at {HOST}"


def down(layout: Layout) -> None:
    """Stop everything, undo every change of this machine, remove every file."""
    if not layout.root.is_dir():
        return say("there is none")
    if layout.node.is_dir():
        node.stop(layout)
    for service in reversed(control_plane.services(layout)):
        service.stop()
    if layout.node.is_dir() and (left := node.leftovers(layout)):
        raise SystemExit(f"left behind: {', '.join(left)}")
    shutil.rmtree(layout.root)
    say("stopped and removed")


def kubeconfig(layout: Layout) -> None:
    """Print the administrator's kubeconfig when the cluster answers, else nothing."""
    if layout.kubeconfig("admin").is_file() and control_plane.is_ready(layout):
        print(layout.kubeconfig("admin"))


def restart_kubelet(layout: Layout) -> None:
    """Kill the kubelet and wait until the next one has the node ready."""
    beat = objects.last_beat(layout)
    node.restart_kubelet(layout)
    objects.wait_for_node(layout, since=beat)


def import_images(layout: Layout, archives: list[str]) -> None:
    """Bring images onto the node, from Docker or OCI archives."""
    for archive in archives:
        node.import_image(layout, Path(archive))


def ctr(layout: Layout, words: list[str]) -> None:
    """Run containerd's client in the node, with its k8s.io namespace."""
    sys.exit(node.ctr(layout, *words, capture=False).returncode)


def kubectl_as_admin(layout: Layout, words: list[str]) -> None:
    """Become kubectl."""
    os.execve(BIN / "kubectl", ["kubectl", *kubectl.flags(layout), *words], clean_environment())


def say(text: str) -> None:
    """Print a line for people."""
    print(f"cluster: {text}", flush=True)


@contextmanager
def alone() -> Iterator[None]:
    """Let one process change the cluster at a time."""
    PARTS.mkdir(exist_ok=True)
    directory = os.open(PARTS, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(directory)


CHANGING = {"up": up, "down": down, "restart-kubelet": restart_kubelet}
READING = {"kubeconfig": kubeconfig}
WITH_WORDS = {"import": import_images, "ctr": ctr, "kubectl": kubectl_as_admin}


def main() -> None:
    """Read the command line and run one action."""
    parser = argparse.ArgumentParser(prog="tools/cluster", description=__doc__)
    parser.add_argument("action", choices=[*CHANGING, *READING, *WITH_WORDS])
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.action in WITH_WORDS:
        WITH_WORDS[given.action](Layout(), given.words)
    elif given.action in READING:
        READING[given.action](Layout())
    else:
        with alone():
            CHANGING[given.action](Layout())


if __name__ == "__main__":
    main()
