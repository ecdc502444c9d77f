"""A folder of jobs for each test, ways to wait for real workers, and a small set to merge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcmerge import jobs
from dcmerge.jobs.queue import RUNNER_LOCK
from dcmerge.runtime import locks
from tests.builders import random_tensors, write

SHAPES = {"layer.weight": (24, 16), "layer.bias": (24,)}
#: Generous: a worker imports torch on a machine that others use too.
PATIENCE = 240.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


def wait_for_end(job: jobs.Job) -> jobs.Job:
    wait_until(lambda: job.state not in jobs.ACTIVE, f"{job.id} ends, which is {job.state}: {job.log_tail()}")
    return job


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this test's jobs. No worker outlives the test."""
    found = tmp_path / "jobs"
    found.mkdir()
    monkeypatch.setenv("DCMERGE_JOBS", str(found))
    yield found
    for job in jobs.all_jobs():
        if job.state in jobs.ACTIVE:
            jobs.cancel(job.id)
    wait_until(lambda: not locks.held(found / RUNNER_LOCK), "the runner ends")


@pytest.fixture
def no_runner(folder: Path) -> Iterator[None]:
    """Jobs stay in the queue: this test is what holds the runner's lock."""
    with locks.locked(folder / RUNNER_LOCK) as mine:
        assert mine is not None
        yield


@pytest.fixture
def small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a set of a base and two experts."""
    root = tmp_path / "root"
    base = random_tensors(0, SHAPES)
    write(root / "small" / "base.safetensors", base)
    for seed, task in enumerate(("cats", "dogs"), start=1):
        delta = random_tensors(seed, SHAPES, scale=0.1)
        write(root / "small" / f"{task}.safetensors", {name: value + delta[name] for name, value in base.items()})
    monkeypatch.setenv("DCMERGE_ROOTS", str(root))
    return "folder:small"
