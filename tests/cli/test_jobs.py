"""``dcmerge jobs``: what it says of jobs on disk, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dcmerge import jobs
from dcmerge.cli import main
from dcmerge.jobs.journal import FOLDER_VARIABLE, JobFolder, jobs_folder
from dcmerge.jobs.rows import row_data
from dcmerge.jobs.specification import checked
from tests.plots.builders import comparison

SPEC = {"kind": "compare", "set": "demo", "limit": 10, "val_limit": 10, "methods": [{"slug": "ties"}]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "jobs"))
    return tmp_path


def on_disk(name: str, *states: str) -> JobFolder:
    found = JobFolder(jobs_folder() / name)
    found.create(checked(SPEC))
    for state in states:
        found.state(state)
    return found


def test_an_empty_list(capsys: pytest.CaptureFixture) -> None:
    assert main(["jobs"]) == 0
    assert "no jobs in" in capsys.readouterr().out


def test_the_list_and_one_job(capsys: pytest.CaptureFixture) -> None:
    found = on_disk("20260102-a", jobs.RUNNING)
    for row in comparison().rows[:2]:
        found.finish_step(row.name, row_data(row))
    on_disk("20260103-b", jobs.RUNNING, jobs.DONE)
    assert main(["jobs", "list"]) == 0
    listed = capsys.readouterr().out
    assert "interrupted" in listed and "done" in listed and "Compare TIES-Merging on demo" in listed
    assert main(["jobs", "show", "20260102"]) == 0
    shown = capsys.readouterr().out
    assert "20260102-a: interrupted" in shown and all(row.name in shown for row in comparison().rows[:2])


def test_as_json(capsys: pytest.CaptureFixture) -> None:
    on_disk("a", jobs.RUNNING, jobs.DONE)
    assert main(["jobs", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["jobs"]
    assert (one["id"], one["state"], one["share"], one["steps"]) == ("a", "done", 1.0, [])


def test_a_waiting_job_is_cancelled(capsys: pytest.CaptureFixture) -> None:
    on_disk("a")
    assert main(["jobs", "cancel", "a"]) == 0
    assert capsys.readouterr().out == "a: cancelled\n"
    assert jobs.job("a").state == jobs.CANCELLED


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["show"], "expected the id of a job after show, got none"),
        (["show", "none"], "expected the id of one job, got 'none'"),
        (["list", "a"], "expected no id after list"),
        (["cancel", "a"], "expected a job that waits or runs, got a, which is done"),
        (["resume", "a"], "expected one that was stopped or failed, got a, which is done"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_what_is_refused(arguments: list[str], reason: str, capsys: pytest.CaptureFixture) -> None:
    on_disk("a", jobs.RUNNING, jobs.DONE)
    assert main(["jobs", *arguments]) == 2
    assert reason in capsys.readouterr().err
