"""The file of events: whole lines come back, torn ones do no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "line",
    [
        {"event": 5, "time": 1},
        {"event": "state", "time": "yesterday"},
        {"event": "state", "time": 1e300},
        {"event": "state", "time": -1},
        {"event": "state", "time": True},
        {"event": "progress", "time": 1, "share": "half"},
        {"event": "progress", "time": 1, "share": float("nan")},
        {"event": "progress", "time": 1, "share": 10**400},
        {"event": "worker", "time": 1, "pid": -1},
        {"event": "worker", "time": 1, "pid": 0},
        {"event": "worker", "time": 1},
    ],
)
def test_what_readers_could_not_rely_on_is_no_event(tmp_path: Path, line: dict) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("state", state="queued")
    with open(journal.path, "a") as file:
        file.write(json.dumps(line) + "\n")
    journal.append("state", state="running")
    assert [event["state"] for event in journal.events()] == ["queued", "running"] and journal.odd() == 1


def test_facts_are_of_the_kinds_that_readers_rely_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    lines = [
        {"event": "state", "time": 1},
        {"event": "state", "time": 1, "state": ["done"], "text": 5},
        {"event": "progress", "time": 1, "share": 7, "text": None},
        {"event": "step", "time": 1, "name": {}},
        {"event": "later", "time": 1, "anything": []},
    ]
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [event["state"] for event in journal.events("state")] == ["", ""]
    assert [(event["share"], event["text"]) for event in journal.events("progress")] == [(1.0, "")]
    assert journal.events("step")[0]["name"] == "" and len(journal.events()) == 5 and journal.odd() == 0


def test_deep_lines_are_skipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_text("[" * 200_000 + "\n" + '{"a":' * 100_000 + "\n")
    assert journal.events() == () and journal.odd() == 2
    (tmp_path / "deep.json").write_text("[" * 200_000)
    assert read_json(tmp_path / "deep.json") is None
