"""The folder of a job: what is written is read again, whatever a dying process left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dcmerge import InputError
from dcmerge.jobs.journal import DONE, FOLDER_VARIABLE, QUEUED, RUNNING, JobFolder, jobs_folder


@pytest.fixture
def one(tmp_path: Path) -> JobFolder:
    found = JobFolder(tmp_path / "one")
    found.create({"kind": "compare"})
    return found


def test_events_come_back_in_order(one: JobFolder) -> None:
    one.state(RUNNING)
    one.progress(0.5, "half")
    one.state(DONE)
    assert [(e.kind, e.facts) for e in one.events()] == [
        ("state", {"value": QUEUED}), ("state", {"value": RUNNING}), ("progress", {"share": 0.5, "text": "half"}),
        ("state", {"value": DONE}),
    ]  # fmt: skip
    times = [event.at for event in one.events()]
    assert times == sorted(times)


def test_a_torn_line_is_skipped_and_the_next_event_is_whole(one: JobFolder) -> None:
    with open(one.path / "journal.jsonl", "a") as file:
        file.write('{"at": 1, "kind": "progr')
    one.state(DONE)
    assert [event.facts["value"] for event in one.events()] == [QUEUED, DONE]


def test_a_step_that_is_done_twice_is_there_once_with_its_last_result(one: JobFolder) -> None:
    one.finish_step("a", {"n": 1})
    one.finish_step("b", {"n": 2})
    one.finish_step("a", {"n": 3})
    assert one.steps() == {"a": {"n": 3}, "b": {"n": 2}}
    assert sorted(path.name for path in (one.path / "steps").iterdir()) == ["a.json", "b.json"]


def test_the_lock_tells_who_is_alive(one: JobFolder) -> None:
    assert not one.is_alive()
    with one.alive() as mine:
        assert mine and one.is_alive()
        with one.alive() as second:
            assert not second
    assert not one.is_alive()


def test_a_killed_process_leaves_no_lock(one: JobFolder) -> None:
    code = ("import sys, time; from pathlib import Path; from dcmerge.jobs.journal import JobFolder\n"
            f"with JobFolder(Path({str(one.path)!r})).alive(): print('mine', flush=True); time.sleep(600)")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n" and one.is_alive()
    process.kill()
    process.wait()
    process.stdout.close()
    assert not one.is_alive()


def test_a_folder_that_is_no_job(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a readable job"):
        JobFolder(tmp_path / "none").description()


def test_where_jobs_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert jobs_folder() == tmp_path / "dcmerge" / "jobs"
