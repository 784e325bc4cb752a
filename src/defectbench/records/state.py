"""Where a cell, or the Job that holds it, is: the same words in `run`, `status`, the report and the docs."""

from __future__ import annotations

from enum import StrEnum

from defectbench.errors import ExitCode


class CellState(StrEnum):
    """In the order of a cell's life."""

    QUEUED = "queued"
    """Its Job is suspended: Kueue, or a person, lets it wait."""
    PENDING = "pending"
    PULLING = "pulling"
    """Its pod is on a node; the image is being fetched, volumes are being mounted."""
    WAITING = "waiting"
    """Another worker holds it."""
    RUNNING = "running"
    STUCK = "stuck"
    """Its worker has made no step, or sent no beat, for minutes."""
    FINISHED = "finished"
    """Its result is there and verified; of a Job: it is complete."""
    FAILED = "failed"
    """For good."""
    DAMAGED = "damaged"
    """A document or file of it in the store is not what was written; retry mends it."""
    AGAIN = "again"
    """Something was out of reach: a second try may go through."""
    STOPPED = "stopped"
    DOOMED = "doomed"
    """Its Job holds a node and will never start as it is."""


def state_of(code: ExitCode) -> CellState:
    """Return the state of a cell that a worker ended with this exit code."""
    return _STATES.get(code, CellState.FAILED)


_STATES = {
    ExitCode.DONE: CellState.FINISHED,
    ExitCode.STOPPED: CellState.STOPPED,
    ExitCode.STORE_AWAY: CellState.AGAIN,
    ExitCode.TRY_AGAIN: CellState.AGAIN,
}

ENDED = frozenset({CellState.FINISHED, CellState.FAILED, CellState.AGAIN, CellState.STOPPED})
"""What a worker ends a cell with."""
