"""The cluster to talk to, or why there is none to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from defectbench.errors import ConfigurationError, NoRightsError, TryAgainError

if TYPE_CHECKING:
    from defectbench.runners.kubernetes.api import Cluster


def open_cluster(context: str | None, namespace: str | None) -> Cluster:
    """Return the cluster that kubectl would talk to, or another context's of the same kubeconfig.

    Raises:
        ConfigurationError: the extra ``kubernetes`` is not installed; no such context.
        TryAgainError: no cluster is configured.
    """
    try:
        from defectbench.runners.kubernetes.api import connect  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"a cluster needs the package {error.name}; install the extra: uv sync --extra kubernetes "
            "(pip install 'defectbench[kubernetes]')"
        ) from error
    return connect(context, namespace)


def find_cluster(context: str | None, namespace: str | None) -> tuple[Cluster | None, str]:
    """Return the cluster where one answers, else None and why not: a sweep that ran here needs none.

    Raises:
        DefectbenchError: it does not answer, or has no such namespace, although the caller named it.
    """
    from defectbench.runners.kubernetes.jobs import OURS

    try:
        cluster = open_cluster(context, namespace)
        if namespace:
            from defectbench.runners.kubernetes.checks import check_namespace

            check_namespace(cluster)
        cluster.call("GET", cluster.path("jobs"), query={"labelSelector": OURS, "limit": 1})
    except (ConfigurationError, NoRightsError, TryAgainError) as error:
        if context or namespace:
            raise
        return None, str(error)
    return cluster, ""
