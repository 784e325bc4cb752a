"""How long 5,000 Jobs take from cells to manifests, and what reading them shape by shape saves.

.venv/bin/python benchmarks/render.py
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable

import yaml

from defectbench.execution.events import thread_variables
from defectbench.runners.chart import chart, helm
from defectbench.runners.chart.values import Values

JOBS = 5000
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def values() -> Values:
    """Return values of one GPU Job a cell, of twenty categories."""
    resources = {"gpu": 1, "cpu": 8, "memory": "32Gi", "shm": "8Gi"}
    jobs = []
    for number in range(JOBS):
        category, key = f"category-{number % 20}", f"{number:020x}"
        name = chart.name_of("study", "glass", category, [key])
        entry = {"name": name, "model": "glass", "category": category, "cells": [key], "resources": resources}
        jobs.append(entry)
    return {"sweep": "study", "jobs": jobs, "environment": thread_variables(4), "store": {"url": "s3://b/x"}}


def measure(what: str, work: Callable[[], object]) -> None:
    """Print how long a piece of work takes."""
    started = time.perf_counter()
    work()
    print(f"{what:55} {time.perf_counter() - started:7.2f} s")


def main() -> None:
    """Measure and print."""
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"rendered by {helm.find_program() or 'the Python binding'}")
    given = values()
    started = time.perf_counter()
    manifests = chart.render(given)
    print(f"{f'{JOBS} Jobs rendered':55} {time.perf_counter() - started:7.2f} s")
    measure("read, with their digests", lambda: sum(1 for _ in manifests))
    print(f"{'peak memory':55} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:7.0f} MB")
    documents = list(helm.template(chart.find_chart(), given, "default", "1.31.0"))
    measure("for comparison: all parsed by libyaml", lambda: [yaml.load(text, LOADER) for text in documents])


if __name__ == "__main__":
    main()
