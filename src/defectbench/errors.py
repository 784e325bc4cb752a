"""Every error that defectbench raises on purpose, and the exit codes that they end with.

::

    DefectbenchError
    ├── UsageError             64  the command or the sweep is wrong
    │   └── SweepError             ... with the line of the YAML file
    ├── DataError              65  the images, or a table, are wrong: all problems at once
    ├── MissingInputError      66  a named file, data set, sweep or cell is not there
    │   └── MissingObjectError     ... no such object in a store that is there
    ├── MissingWeightsError    69  weights (or an image of the containers) cannot be had
    ├── BugError               70  we were wrong
    ├── TryAgainError          75  store, tracker or cluster out of reach, disk full
    │   ├── StoreAwayError     74  ... the store: a worker that waited for it ends so, other commands with 75
    │   ├── CheckpointError        ... a fit that cannot be gone on with: it starts anew
    │   ├── ConflictError          ... somebody else wrote the object first
    │   └── LeaseLostError         ... another worker has taken the cell over
    ├── NoRightsError          77  refused for want of rights
    ├── ConfigurationError     78  unknown context, values that break the schema, a missing extra
    ├── DeadlineError         124  the cell's running time is used up
    └── StoppedError          143  SIGTERM, after saving

The table of exit codes is the only one: the Jobs' failure policy, ``status`` and ``retry`` read it here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command ends with (sysexits.h where it has a word for it)."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 64
    DATA = 65
    MISSING_INPUT = 66
    MISSING_WEIGHTS = 69
    BUG = 70
    STORE_AWAY = 74
    TRY_AGAIN = 75
    NO_RIGHTS = 77
    CONFIGURATION = 78
    DEADLINE = 124
    STOPPED = 143


PERMANENT = frozenset(
    {
        ExitCode.USAGE,
        ExitCode.DATA,
        ExitCode.MISSING_INPUT,
        ExitCode.MISSING_WEIGHTS,
        ExitCode.BUG,
        ExitCode.NO_RIGHTS,
        ExitCode.CONFIGURATION,
        ExitCode.DEADLINE,
    }
)
"""Codes that a second try cannot mend."""


class DefectbenchError(Exception):
    """Base of all; ``code`` is what the process ends with."""

    code: ClassVar[ExitCode] = ExitCode.BUG


class UsageError(DefectbenchError):
    """The command line, a setting or a name is wrong."""

    code = ExitCode.USAGE


class SweepError(UsageError):
    """A sweep file is wrong; the message starts with ``file:line``."""


class DataError(DefectbenchError):
    """The images, or a table of them or of models, are wrong.

    Attributes:
        problems: one line for each problem, naming its file.
    """

    code = ExitCode.DATA

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class MissingInputError(DefectbenchError):
    """Something that was named is not there."""

    code = ExitCode.MISSING_INPUT


class MissingObjectError(MissingInputError):
    """The store has no object under this key."""


class MissingWeightsError(DefectbenchError):
    """Weights that a model needs are not in the store."""

    code = ExitCode.MISSING_WEIGHTS


class BugError(DefectbenchError):
    """A state that our own code should have made impossible."""

    code = ExitCode.BUG


class TryAgainError(DefectbenchError):
    """Out of reach, or out of memory or disk space, for now; the same command later may go through."""

    code = ExitCode.TRY_AGAIN


class StoreAwayError(TryAgainError):
    """The store does not answer, is too busy, or cannot take what is written to it.

    Nobody's fault who asks: a worker waits it out (:class:`defectbench.stores.patient.PatientStore`), and
    where that takes too long it ends with :attr:`ExitCode.STORE_AWAY`, which is no failure of its cells.
    """


class CheckpointError(TryAgainError):
    """What was saved of a fit is damaged or another fit's: no reason to fail, the fit starts anew."""


class ConflictError(TryAgainError):
    """A conditional put lost: the object is not as the caller last saw it."""


class LeaseLostError(TryAgainError):
    """This worker no longer holds the cell: nothing more of this attempt may be published."""


class NoRightsError(DefectbenchError):
    """The credentials in use do not allow it."""

    code = ExitCode.NO_RIGHTS


class ConfigurationError(DefectbenchError):
    """The surroundings are set up wrongly: a context, a namespace, values, a missing extra."""

    code = ExitCode.CONFIGURATION


class DeadlineError(DefectbenchError):
    """The running time that the sweep allows a cell is used up."""

    code = ExitCode.DEADLINE


class StoppedError(DefectbenchError):
    """SIGTERM or Ctrl-C was received; what could be saved is saved."""

    code = ExitCode.STOPPED


def nearest(got: str, allowed: Iterable[str]) -> str:
    """Say which of the ``allowed`` names are meant, for the end of an error message.

    >>> nearest("patchcor", ["padim", "patchcore"])
    "did you mean 'patchcore'? allowed: padim, patchcore"
    >>> nearest("zzz", ["a", "b"])
    'allowed: a, b'
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}"


def describe_exit_code(code: int, reason: str = "") -> str:
    """Say an exit code in words.

    >>> describe_exit_code(65)
    'exit code 65 (the images are wrong)'
    >>> describe_exit_code(137, "OOMKilled")
    'killed for want of memory (exit code 137)'
    """
    if reason == "OOMKilled":
        return f"killed for want of memory (exit code {code})"
    words = _WORDS.get(code) or (f"killed by signal {code - 128}" if 128 < code < 160 else "")
    return f"exit code {code} ({words})" if words else f"exit code {code}"


# 137 and 139 are a shell's 128 + signal number: SIGKILL and SIGSEGV.
_WORDS = {
    ExitCode.DONE: "done",
    ExitCode.SOME_FAILED: "some cells failed",
    ExitCode.USAGE: "the command is wrong",
    ExitCode.DATA: "the images are wrong",
    ExitCode.MISSING_INPUT: "a data set or cell is missing",
    ExitCode.MISSING_WEIGHTS: "weights are missing",
    ExitCode.BUG: "a bug of defectbench",
    ExitCode.STORE_AWAY: "the store is away; it is tried again and counts as no failure",
    ExitCode.TRY_AGAIN: "something was out of reach; it is tried again",
    ExitCode.NO_RIGHTS: "refused for want of rights",
    ExitCode.CONFIGURATION: "the configuration is wrong",
    ExitCode.DEADLINE: "the deadline passed",
    ExitCode.STOPPED: "stopped by SIGTERM after saving",
    137: "killed by SIGKILL",
    139: "the process crashed",
}
