"""What is looked at before anything is submitted: namespace, Secrets, image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from defectbench.errors import ConfigurationError, MissingWeightsError
from defectbench.runners.chart.chart import Manifest, image_of, secrets_of
from defectbench.runners.kubernetes.api import Cluster, unknown_namespace
from defectbench.runners.kubernetes.find import nodes
from defectbench.runners.kubernetes.jobs import QUEUE
from defectbench.runners.kubernetes.kueue import check_queue

_LOCAL = r"defectbench[:@]"
"""The default image: without a registry's name before it, it is one that was built here and loaded."""

IMAGES_REPORTED = 50
"""Images that a kubelet reports at most by default (nodeStatusMaxImages)."""


def check_namespace(cluster: Cluster) -> None:
    """Refuse a namespace that is not there. Without the right to look at it, creating the Jobs will show.

    Raises:
        ConfigurationError: no such namespace.
    """
    answer = cluster.call("GET", f"/api/v1/namespaces/{cluster.namespace}", allow=(403, 404))
    if answer.status == 404:
        raise unknown_namespace(cluster)


def check_needs(cluster: Cluster, manifest: Manifest) -> list[str]:
    """Look for what the pods of a sweep need. All its manifests need the same.

    Returns:
        What could not be looked at, for people.

    Raises:
        ConfigurationError: a Secret, or Kueue's queue, is missing.
        MissingWeightsError: no node has the local image.
    """
    warnings = list(_secrets(cluster, secrets_of(manifest)))
    if queue := manifest["metadata"].get("labels", {}).get(QUEUE):
        warnings += check_queue(cluster, queue)
    image = image_of(manifest)
    if re.match(_LOCAL, image):
        warnings += _image(cluster, image)
    return warnings


def _secrets(cluster: Cluster, names: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each Secret that cannot be looked for; raise for those that are missing."""
    missing = []
    for name in names:
        # Its answer holds the Secret itself: only the status is looked at, and nothing of it is kept.
        status = cluster.call("GET", cluster.path("secrets", name), allow=(403, 404)).status
        if status == 403:
            yield f"Secret {name} was not looked for: these credentials may not read it"
        elif status == 404:
            missing.append(name)
    if missing:
        raise ConfigurationError(
            f"namespace {cluster.namespace} has no Secret {', '.join(missing)}, and pods would wait for it "
            "for ever: kubectl create secret generic NAME --from-env-file=FILE (docs/kubernetes.md: the keys)"
        )


def _image(cluster: Cluster, image: str) -> list[str]:
    """Return a warning where it is not known whether a node has the image; raise where none has."""
    found = nodes(cluster)
    if found is None:
        return [f"whether a node has the image {image} is not known: these credentials may not list nodes"]
    reported = [node.get("status", {}).get("images") or [] for node in found]
    names = {_plain(name) for images in reported for each in images for name in each.get("names") or ()}
    if _plain(image) in names:
        return []
    if any(len(images) >= IMAGES_REPORTED for images in reported):
        return [
            f"whether a node has the image {image} is not known: nodes name {IMAGES_REPORTED} images at most"
        ]
    raise MissingWeightsError(
        f"no node of context {cluster.context} has the image {image}, which is this machine's own: load it "
        "(kind load docker-image, minikube image load), or push it (make image-push REGISTRY=...) and give "
        "--image"
    )


def _plain(image: str) -> str:
    """Return an image's name as people write it: container runtimes put their default registry before it."""
    return image.removeprefix("docker.io/").removeprefix("library/").removeprefix("localhost/")
