"""How long a running job takes to stop, whatever it computes."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator

from benchmarks.measuring import Row
from dcmerge import jobs
from dcmerge.runtime import locks
from dcmerge.runtime.state_files import JOBS_VARIABLE

#: A method each of steps on images, of steps on weights, and of one long decomposition after another.
METHODS = ("adarank", "wudi", "tsv_m")
#: Seconds into the method before it is cancelled.
_INTO = 4.0


def stopping(runs: int) -> Iterator[Row]:
    """Cancel to the moment at which the worker is gone."""
    for slug in METHODS:
        seconds = [_stopped(slug) for _ in range(runs)]
        yield Row(
            "j",
            f"cancel of a job that runs {slug}",
            None,
            statistics.median(seconds),
            None,
            "< 2 s",
            runs,
            f"longest {max(seconds):.2f} s",
        )


def _stopped(slug: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        os.environ[JOBS_VARIABLE] = folder
        job = jobs.submit({"kind": "compare", "set": "demo", "methods": [slug], "limit": 20, "val_limit": 20})
        while "average" not in job.steps():
            time.sleep(0.1)
        time.sleep(_INTO)
        began = time.perf_counter()
        jobs.cancel(job.id)
        while locks.held(job.lock):
            time.sleep(0.01)
        took = time.perf_counter() - began
        while locks.held(jobs.state_folder() / "runner.lock"):  # it still writes into the folder
            time.sleep(0.1)
        return took
