"""What `why` needs to know, asked of the store first and of the cluster only where that does not answer."""

from __future__ import annotations

from defectbench.errors import MissingInputError
from defectbench.records.cell import find_cell
from defectbench.records.lease import describe_silence
from defectbench.records.state import CellState
from defectbench.runners.kubernetes import find, kueue
from defectbench.runners.kubernetes.api import Cluster
from defectbench.runners.kubernetes.find import JobWithPods
from defectbench.runners.kubernetes.why import Facts
from defectbench.runners.status import StoredState, read_stored_states
from defectbench.stores.base import Store


def gather_facts(store: Store, subject: str, cluster: Cluster | None, unasked: str = "") -> Facts:
    """Return what is known of a cell, by the start of its key, or of a Job, by its name.

    Args:
        unasked: why there is no ``cluster``.

    Raises:
        MissingInputError: neither such a cell nor such a Job.
    """
    cell = find_cell(store, subject)
    if cell is None:
        if cluster is None:
            raise MissingInputError(
                f"no cell {subject!r} in {store.url}, and Jobs cannot be asked about: {unasked}"
            )
        return _facts(cluster, find.job(cluster, subject), "", StoredState())
    kept = read_stored_states(store, [cell])[cell]
    if kept.finished or kept.failure is not None or kept.damage:
        return Facts(cell, kept.finished, kept.failure, kept.lease, damage=kept.damage)
    if cluster is None:
        return Facts(cell, lease=kept.lease, silence=_silence(kept), unasked=unasked)
    held = find.holder(cluster, cell)
    if held is None:
        return Facts(cell, lease=kept.lease, silence=_silence(kept))
    return _facts(cluster, held, cell, kept)


def _facts(cluster: Cluster, held: JobWithPods, cell: str, kept: StoredState) -> Facts:
    """Return what is known of a Job; nodes and queue are asked for only where they matter."""
    phase = held.view.phase
    return Facts(
        cell=cell,
        lease=kept.lease,
        silence=_silence(kept),
        job=held.job,
        pods=held.pods,
        events=find.events(cluster, held),
        nodes=find.nodes(cluster) if phase is CellState.PENDING else None,
        queue=find.queue_before(cluster, held.job) if phase is CellState.QUEUED else None,
        kueue=kueue.find_state(cluster, held.job) if phase is CellState.QUEUED else None,
    )


def _silence(kept: StoredState) -> str:
    """Return how whoever holds the cell shows that it hangs; empty where nobody does."""
    return describe_silence(kept.lease) if kept.lease is not None and not kept.lease.released else ""
