"""The command line: parse, call once, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import click

from defectbench.cli.cluster import cancel, retry, submit
from defectbench.cli.data import data
from defectbench.cli.doctor import doctor
from defectbench.cli.export import export, inspect
from defectbench.cli.models import models
from defectbench.cli.render import render
from defectbench.cli.select import select
from defectbench.cli.store import store
from defectbench.cli.sweeps import plan, report, run, track, verdict
from defectbench.cli.watching import logs, status, watch, why
from defectbench.cli.weights import weights
from defectbench.cli.work import job


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="defectbench")
def main() -> None:
    """Anomaly detector or classifier? Train both on the same folds of the same parts, and compare.

    \b
    A first answer on pictures of your own (a folder with good/ and bad/ in it):
      defectbench data import FOLDER --name mine
      defectbench run jobs/local/quick.yaml --set data.dataset=mine
      defectbench report quick --out report

    Exit codes: 0 done, 1 some cells failed, 64 usage, 65 data, 66 missing input, 69 missing weights,
    70 bug, 74 store away (workers), 75 try again later, 77 no rights, 78 configuration, 124 deadline
    passed, 143 stopped.
    """


for command in (
    *(data, store, models, weights, select, plan, render, run, job, report, verdict, track, export, inspect),
    *(submit, status, watch, why, logs, cancel, retry, doctor),
):
    main.add_command(command)
