"""Folders of jobs, stores of runs and exported runs that somebody else wrote, or a bad disk."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcmerge.runs.schema import FILE, MIGRATIONS
from tests.corpus.making import Case, raw

ID = "20260101-101010-abcdef"
JOB = {
    "label": "compare",
    "created": 1.7e9,
    "roots": [],
    "specification": {"kind": "compare", "set": "demo", "methods": [{"slug": "ties"}], "limit": 1},
}
EVENTS: dict[str, list[Any]] = {
    "a state of tomorrow": [{"time": 1.0, "event": "state", "state": "dreaming"}],
    "no state": [{"time": 1.0, "event": "state"}],
    "a state with control characters": [{"time": 1.0, "event": "state", "state": "failed", "text": "\x1b[2J\u202ex"}],
    "no time": [{"event": "state", "state": "running"}],
    "a time in words": [{"time": "noon", "event": "state", "state": "running"}],
    "a time that is no number": [{"time": float("nan"), "event": "state", "state": "running"}],
    "a time of the year 10^300": [{"time": 1e300, "event": "state", "state": "running"}],
    "events that are lists": [[1, 2], [], None, 7, "x"],
    "an event without a name": [{"time": 1.0}],
    "an event named by a list": [{"time": 1.0, "event": ["state"]}],
    "progress beyond the end": [{"time": 1.0, "event": "progress", "share": 1e308}],
    "progress in words": [{"time": 1.0, "event": "progress", "share": "half", "text": 5}],
    "the process 0": [{"time": 1.0, "event": "worker", "pid": 0}],
    "the process -1": [{"time": 1.0, "event": "worker", "pid": -1}],
    "a process in words": [{"time": 1.0, "event": "worker", "pid": "init"}],
    "the process 2^70": [{"time": 1.0, "event": "worker", "pid": 2**70}],
    "a step above": [{"time": 1.0, "event": "step", "name": "../../x"}],
}
BYTES: dict[str, bytes] = {
    "nothing": b"",
    "zeros": bytes(500),
    "no UTF-8": b"\xff\xfe\n" * 20,
    "a torn line": b'{"time": 1.0, "event": "sta',
    "deep JSON": b"[" * 40_000 + b"\n" + b'{"a":' * 40_000,
    "a long number": b'{"time": ' + b"9" * 6_000 + b', "event": "state"}\n',
    "a line of a megabyte": b'"' + b"x" * (1 << 20) + b'"\n',
}
ABOUT: dict[str, Any] = {
    "a list": [],
    "nothing": {},
    "a date in words": {**JOB, "created": "today"},
    "a date beyond the calendar": {**JOB, "created": 1e200},
    "a date that is no number": {**JOB, "created": float("nan")},
    "roots in a text": {**JOB, "roots": "/"},
    "a label with control characters": {**JOB, "label": "\x1b[2J\x07label"},
    "a label that is a number": {**JOB, "label": 4},
    "no specification": {key: value for key, value in JOB.items() if key != "specification"},
    "a kind of tomorrow": {**JOB, "specification": {"kind": "dream"}},
    "a kind that is a list": {**JOB, "specification": {"kind": []}},
    "methods that are numbers": {**JOB, "specification": {**JOB["specification"], "methods": [1, 2]}},
    "a method above": {**JOB, "specification": {**JOB["specification"], "methods": [{"slug": "../../x"}]}},
    "a limit of minus one": {**JOB, "specification": {**JOB["specification"], "limit": -1}},
    "a set that is a mapping": {**JOB, "specification": {**JOB["specification"], "set": {}}},
    "plugins that are numbers": {**JOB, "plugins": [5]},
}
#: A line of an exported folder of runs.
LINES: dict[str, bytes] = {
    "no JSON": b"{",
    "a list": b"[]",
    "a mapping of nothing": b"{}",
    "NaN": b"NaN",
    "deep": b"[" * 40_000,
    "bytes": b"\xff\xfe\x00",
    "a kind of tomorrow": b'{"id": "x", "kind": "dream"}',
    "an id of control characters": b'{"id": "\\u001b[2J", "made": "2026", "kind": "evaluation"}',
    "a long number": b'{"id": ' + b"9" * 6_000 + b"}",
    "two lines that are none": b"{}\n[]",
}


def jobs_of(folder: Path) -> Path:
    """Where jobs and runs lie while a case is tried: beside its own folder."""
    return folder.parent / "jobs"


def _job(path: Path, about: Any, journal: bytes) -> None:
    raw(path / "job.json", json.dumps(about))
    raw(path / "journal.jsonl", journal)


def _journal(name: str, journal: bytes, command: list[str]) -> Case:
    def make(folder: Path) -> list[str]:
        _job(jobs_of(folder) / ID, JOB, journal)
        return command

    return Case(f"{' '.join(command)}: a journal with {name}", "read", make)


def _about(name: str, about: Any) -> Case:
    def make(folder: Path) -> list[str]:
        _job(jobs_of(folder) / ID, about, b"")
        return ["jobs"]

    return Case(f"jobs: one whose job.json is {name}", "read", make)


def _store(name: str, put: Callable[[Path], object], *command: str, expected: Any = "refused") -> Case:
    def make(folder: Path) -> list[str]:
        (jobs_of(folder)).mkdir()
        put(jobs_of(folder) / FILE)
        return ["runs", *command]

    return Case(f"runs {' '.join(command)}: {name}", expected, make)


def _imported(name: str, line: bytes) -> Case:
    def make(folder: Path) -> list[str]:
        raw(folder / "shared" / "runs.jsonl", line)
        return ["runs", "import", str(folder / "shared")]

    return Case(f"runs import: {name}", "refused", make)


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9999")
    connection.close()


def _other_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(
            f"CREATE TABLE runs (a); CREATE TABLE accuracies (b); CREATE TABLE pins (c); PRAGMA user_version = {len(MIGRATIONS)};"
        )
    connection.close()


def _bad_rows(path: Path) -> None:
    """Rows whose every value is of another kind than it should be."""
    with sqlite3.connect(path) as connection:
        connection.executescript("".join(MIGRATIONS) + f"PRAGMA user_version = {len(MIGRATIONS)};")
        columns = len(connection.execute("PRAGMA table_info(runs)").fetchall())
        for number, value in enumerate(("\x1b[2J", "{", b"\xff\x00", "x" * 5_000)):
            row = [f"{number}-\x1b[2J", *[value] * (columns - 1)]
            row[columns - 2] = f"identity{number}"
            connection.execute(f"INSERT INTO runs VALUES ({', '.join('?' * columns)})", row)
    connection.close()


def _cut(path: Path) -> None:
    _newer(path)
    path.write_bytes(path.read_bytes()[:700])


STORES: dict[str, Callable[[Path], object]] = {
    "a store of zeros": lambda path: raw(path, bytes(4096)),
    "a store of noise": lambda path: raw(path, b"SQLite format 3\0" + b"\xab" * 4000),
    "a store that is cut": _cut,
    "a store that is a folder": Path.mkdir,
    "a store that is a loop": lambda path: path.symlink_to(path.name),
    "a store of a newer version": _newer,
    "a store of other tables": _other_tables,
}


def _lines(events: list[Any]) -> bytes:
    return "".join(f"{json.dumps(event)}\n" for event in events).encode()


CASES = [
    *(_journal(name, _lines(events), ["jobs"]) for name, events in EVENTS.items()),
    *(_journal(name, _lines(events), ["jobs", "show", ID]) for name, events in list(EVENTS.items())[::2]),
    *(_journal(name, content, ["jobs"]) for name, content in BYTES.items()),
    *(_about(name, about) for name, about in ABOUT.items()),
    *(_imported(name, line) for name, line in LINES.items()),
    *(_store(name, put) for name, put in STORES.items()),
    *(_store(name, put, "check") for name, put in STORES.items()),
    _store("rows of nobody's", _bad_rows, expected="read"),
    _store("rows of nobody's", _bad_rows, "check", expected="read"),
    _store("rows of nobody's", _bad_rows, "--json", expected="read"),
]
