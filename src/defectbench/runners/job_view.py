"""What is known of a Job, whoever asked the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from defectbench.records.state import CellState


@dataclass(frozen=True, slots=True)
class JobView:
    """A Job and its pods, read.

    Attributes:
        cells: that it holds, in their order.
        digest: of the manifest that it was made from.
        reason: why it is in this phase, for people; empty where the phase says it all.
        code: exit code of the last container that ended, None while none did.
        killed: the reason that the kubelet gave for it (``OOMKilled``...).
        pod: the latest.
        node: where that pod is.
        leaving: the Job is being deleted.
    """

    name: str
    uid: str
    sweep: str
    model: str
    category: str
    cells: tuple[str, ...]
    digest: str
    phase: CellState
    reason: str = ""
    code: int | None = None
    killed: str = ""
    pod: str = ""
    node: str = ""
    leaving: bool = False

    @property
    def live(self) -> bool:
        """Whether it works on its cells, or may yet."""
        return self.phase not in (CellState.FINISHED, CellState.FAILED) and not self.leaving
