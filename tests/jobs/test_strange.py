"""What a job's folder holds is not always ours: only that job suffers, and what is not understood is shown as such."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcmerge import jobs
from dcmerge.cli import main
from dcmerge.errors import InputError

pytestmark = pytest.mark.usefixtures("no_runner")

COMPARE = {"kind": "compare", "set": "demo", "methods": ["ties"], "limit": 1}


def journal_of(*lines: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with open(folder / "journal.jsonl", "ab") as file:
            for line in lines:
                file.write((line if isinstance(line, bytes) else json.dumps({"time": 1.0, **line}).encode()) + b"\n")

    return damage


def about(**changed: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        known = json.loads((folder / "job.json").read_text())
        (folder / "job.json").write_text(json.dumps({**known, **changed}))

    return damage


def step(text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "steps").mkdir()
        (folder / "steps" / "ties.json").write_text(text)
        journal_of({"event": "state", "state": "done"})(folder)

    return damage


READABLE = {
    "a newer version's state": journal_of({"event": "state", "state": "paused"}),
    "a state without a word": journal_of({"event": "state"}),
    "a state that is no text": journal_of({"event": "state", "state": {"a": 1}, "text": 7}),
    "progress without a share": journal_of({"event": "state", "state": "running"}, {"event": "progress"}),
    "odd progress": journal_of({"event": "progress", "share": "x"}, {"event": "progress", "share": [1], "text": 5}),
    "deep": journal_of(b"[" * 100_000, b'{"a":' * 100_000),
    "bad dates": journal_of({"event": "state", "state": "queued", "time": "now"}, {"event": "state", "time": 1e308}),
    "bytes": journal_of(b"\xff\x00" * 50),
    "a damaged row": step("{}"),
    "a row that is a list": step("[1, 2]"),
    "a deep row": step("[" * 100_000),
}
UNREADABLE = {
    "created": about(created="yesterday"),
    "created late": about(created=1e300),
    "label": about(label=["a"]),
    "roots": about(roots=[1]),
    "kind": about(specification={"kind": "later"}),
    "specification": about(specification=[]),
    "methods": about(specification={**COMPARE, "methods": [{"slug": 5}]}),
    "plugins": about(plugins=[1]),
}


@pytest.mark.parametrize("damage", READABLE.values(), ids=READABLE)
def test_a_job_with_an_odd_file_is_shown_beside_the_others(damage: Callable, capsys: pytest.CaptureFixture) -> None:
    sound, odd = jobs.submit(COMPARE), jobs.submit(COMPARE)
    damage(odd.folder)
    assert {job.id for job in jobs.all_jobs()} == {sound.id, odd.id}
    for command in (["jobs"], ["jobs", "--json"], ["jobs", "show", odd.id], ["jobs", "show", odd.id, "--json"]):
        assert main(command) == 0
    assert odd.id in capsys.readouterr().out
    assert sound.state is jobs.State.QUEUED and isinstance(odd.state, jobs.State) and 0 <= odd.progress.share <= 1
    assert odd.comparison() is None or odd.comparison().rows


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
def test_a_folder_that_cannot_be_read_is_named(damage: Callable, capsys: pytest.CaptureFixture) -> None:
    sound, odd = jobs.submit(COMPARE), jobs.submit(COMPARE)
    damage(odd.folder)
    assert [job.id for job in jobs.all_jobs()] == [sound.id] and jobs.strange_folders() == (odd.id,)
    assert main(["jobs"]) == 0
    assert f"cannot be read by this version: {odd.id}" in capsys.readouterr().out


def test_an_unknown_state_is_told_and_neither_cancelled_nor_resumed() -> None:
    job = jobs.submit(COMPARE)
    READABLE["a newer version's state"](job.folder)
    assert job.state is jobs.State.UNKNOWN and not job.resumable and "says paused, which this version" in job.error
    for change in (jobs.cancel, jobs.resume):
        with pytest.raises(InputError, match="which is unknown"):
            change(job.id)
