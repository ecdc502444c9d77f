"""Sweeps as jobs: real workers on the demo's small brother, helpers included, and every point once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dcmerge import InputError, jobs
from dcmerge.jobs.specification import specification, to_data
from dcmerge.runs import POINT, RunStore
from dcmerge.studies.sweep.running import found_in
from dcmerge.studies.sweep.store import Store
from tests.jobs.conftest import wait_for_end, wait_until

POINTS = 6


def sweep(**about: Any) -> dict[str, Any]:
    plan = {"slug": "task_arithmetic", "over": [f"scale=0.2:1.2:{POINTS}"], "limit": 2, "test_limit": 2}
    return {"kind": "sweep", "set": "demo", "plan": {**plan, **about.pop("plan", {})}, **about}


def finished_once(job: jobs.Job) -> None:
    """Every point and the look at test have one step in the journal, and the study holds each point once."""
    named = [event["name"] for event in job.journal.events("step")]
    assert sorted(named) == sorted(job.specification.steps) == sorted([*(f"point-{n}" for n in range(POINTS)), "test", "chosen"])
    assert isinstance(job.specification, jobs.Sweep)
    store = Store(job.study, job.specification.plan)
    found = found_in(job.specification.plan, store)
    store.close()
    assert found is not None and [point.number for point in found.points] == list(range(POINTS))
    assert len(found.tests) == 1 and found.remaining == 0
    assert len(RunStore().find(kind=POINT, group=job.id)) == POINTS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"set": "nowhere"}, "set: expected one of"),
        ({"plan": {"slug": "no_method"}}, "no_method"),
        ({"plan": {"over": "scale"}}, "a list of what is varied"),
        ({"plan": {"over": ["speed"]}}, "speed"),
        ({"plan": {"colour": 1}}, "colour"),
        ({"workers": 0}, "workers: expected an integer from 1 to 64"),
        ({"workers": 2.5}, "workers: expected an integer from 1 to 64"),
    ],
)
def test_what_cannot_run_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        specification(sweep(**change))


def test_a_specification_is_read_back_as_it_was(no_runner: None) -> None:
    job = jobs.submit(sweep(workers=3))
    again = jobs.job(job.id)
    assert again.specification == job.specification and to_data(again.specification)["workers"] == 3
    assert job.label == "Sweep scale of Task Arithmetic on demo"
    assert job.steps() == {} and len(job.specification.steps) == POINTS + 2


@pytest.mark.slow
def test_two_workers_find_every_point_once() -> None:
    job = wait_for_end(jobs.submit(sweep(workers=2)))
    assert job.state is jobs.State.DONE, job.log_tail()
    finished_once(job)
    assert job.progress.share == 1 and not job.resumable


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(folder: Path) -> None:
    job = jobs.submit(sweep())
    wait_until(lambda: len(job.steps()) >= 2 or job.state not in jobs.ACTIVE, "two points are finished")
    os.kill(job.journal.events("worker")[-1]["pid"], signal.SIGKILL)
    wait_for_end(job)
    assert job.state is jobs.State.INTERRUPTED
    kept = set(job.steps())
    jobs.resume(job.id)
    wait_for_end(job)
    assert job.state is jobs.State.DONE and kept < set(job.steps())
    finished_once(job)


@pytest.mark.slow
def test_a_cancelled_sweep_leaves_no_helper_behind(folder: Path) -> None:
    job = jobs.submit(sweep(workers=2))
    wait_until(lambda: job.steps() or job.state not in jobs.ACTIVE, "a point is finished")
    jobs.cancel(job.id)
    wait_for_end(job)
    assert job.state is jobs.State.CANCELLED
    wait_until(lambda: not helpers_of(job), "the helper ends")
    assert jobs.resume(job.id).state in jobs.ACTIVE
    wait_for_end(job)
    finished_once(job)


def helpers_of(job: jobs.Job) -> list[str]:
    """The processes that name the job's folder in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(job.folder) in words and "dcmerge.jobs.sweeping" in words:
            found.append(process.name)
    return found
