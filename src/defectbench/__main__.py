"""``python -m defectbench`` and the console script: errors become one clear message and an exit code."""

from __future__ import annotations

import logging
import signal
import sys

import click

from defectbench.errors import BugError, DataError, DefectbenchError, ExitCode, UsageError
from defectbench.util.shutdown import fall_silent


def main() -> None:
    """Run the command line."""
    code = run(sys.argv[1:])
    # What it ends with is decided. Python puts the default actions back while it shuts down, and a second
    # SIGTERM would then set another code.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    from defectbench.cli import main as commands

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # A cell's log is kept at INFO in the store; the terminal is for what a person must know.
    logging.getLogger().handlers[0].setLevel(logging.WARNING)
    try:
        return int(commands.main(arguments, prog_name="defectbench", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return ExitCode.STOPPED
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`): nothing is left to say.
        fall_silent()
        return ExitCode.DONE
    except BugError as error:
        logging.getLogger(__name__).exception("this is a bug of defectbench")
        return error.code
    except DefectbenchError as error:
        click.echo(_message(error), err=True)
        return error.code
    except Exception:
        logging.getLogger(__name__).exception("this is a bug of defectbench")
        return ExitCode.BUG


def _message(error: DefectbenchError) -> str:
    """Return what the person reads."""
    text = str(error)
    if isinstance(error, UsageError):
        return f"Error: {text}"
    problems = error.problems if isinstance(error, DataError) else text.splitlines()
    return (
        f"Error: {text}" if len(problems) == 1 else "\n".join([f"Error: {len(problems)} problems", *problems])
    )


if __name__ == "__main__":
    main()
