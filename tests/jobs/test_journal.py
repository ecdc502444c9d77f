"""The file of events: whole lines come back, torn ones do no harm."""

from __future__ import annotations

from pathlib import Path

from dcmerge.jobs.journal import Journal
from dcmerge.runtime.state_files import read_json, write_json


def test_events_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.events() == ()
    journal.append("state", state="queued")
    journal.append("progress", share=0.5, text="α = 0.3")
    assert [event["event"] for event in journal.events()] == ["state", "progress"]
    assert journal.events("progress")[0]["text"] == "α = 0.3"


def test_a_torn_last_line_is_skipped_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("step", name="average")
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + whole[: len(whole) // 2])
    assert len(journal.events()) == 1
    journal.append("step", name="ties")
    assert [event["name"] for event in journal.events()] == ["average", "ties"]


def test_lines_that_are_no_events_are_skipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(b'[1]\nnonsense\n{"event": "step"}\n\xff\xfe\n')
    assert journal.events() == ()


def test_a_document_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2} and list(tmp_path.glob("*a.json*")) == [path]
    path.write_text('{"a"')
    assert read_json(path) is None and read_json(tmp_path / "none.json") is None
