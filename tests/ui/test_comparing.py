"""Comparisons as the Compare page sees them: jobs of this set, with their rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge import jobs
from dcmerge.jobs.journal import FOLDER_VARIABLE, JobFolder, jobs_folder
from dcmerge.jobs.rows import row_data
from dcmerge.jobs.specification import checked
from dcmerge.model_sets import ModelSet
from dcmerge.ui import comparing
from tests.plots.builders import comparison

SPEC = {"kind": "compare", "set": "demo", "limit": 10, "val_limit": 10, "methods": [{"slug": "ties"}]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def on_disk(name: str, *states: str, rows: int = 0) -> JobFolder:
    """A job as a worker has left it."""
    found = JobFolder(jobs_folder() / name)
    found.create(checked(SPEC))
    for state in states:
        found.state(state)
    for row in comparison().rows[:rows]:
        found.finish_step(row.name, row_data(row))
    return found


def models(name: str) -> ModelSet:
    return ModelSet(name, name, vectors=None)


def test_the_newest_of_this_set_comes_first() -> None:
    on_disk("a", jobs.RUNNING, jobs.DONE, rows=1)
    on_disk("b", jobs.RUNNING, jobs.CANCELLED)
    assert [shown.id for shown in comparing.listed(models("demo"))] == ["b", "a"]
    assert comparing.listed(models("demo-lora")) == []
    assert comparing.find("none") is None


def test_finished_rows_are_there_and_a_dead_worker_can_be_resumed() -> None:
    on_disk("a", jobs.RUNNING, rows=2)  # nobody holds its lock
    found = comparing.find("a")
    assert found.state == comparing.INTERRUPTED and found.can_resume and not found.is_running
    assert [row.name for row in found.comparison.rows] == [row.name for row in comparison().rows[:2]]


def test_one_that_waits_says_so() -> None:
    on_disk("a")
    found = comparing.find("a")
    assert found.is_running and found.text == "waiting for earlier jobs" and found.comparison is None


def test_a_running_one_tells_how_long_it_takes() -> None:
    found = on_disk("a", jobs.RUNNING)
    with found.alive():
        found.progress(0.5, "TIES")
        assert comparing.find("a").state == comparing.RUNNING and comparing.find("a").text.startswith("TIES, about ")
