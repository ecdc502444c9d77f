"""Runs one case through the command line, in this process, and lists in what it falls short."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcmerge.cli import main
from dcmerge.errors import LONGEST
from tests.corpus.making import Expected

REFUSED = 2
#: What a terminal would act on: everything that is not printed, but for the end of a line.
_ACTS = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
#: How notes begin, and the further lines of a long one.
_BEFORE = ("note: ", "warning: ", "  ")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> Outcome:
    """The command's exit code and what it printed."""
    capsys.readouterr()
    code = main(argv)
    return Outcome(code, *capsys.readouterr())


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Of everything below a folder what changes when it is written to."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[path.relative_to(folder).as_posix()] = (
            status.st_ino,
            status.st_size,
            status.st_mtime_ns if not path.is_dir() else 0,
        )
    return found


def shortcomings(outcome: Outcome, expected: Expected, before: dict, after: dict, written: str | None) -> Iterator[str]:
    """What is wrong with an outcome. ``written``: the only thing that may be new where the command succeeded."""
    if outcome.code not in (0, REFUSED):
        yield f"exit code {outcome.code}"
    if (expected, outcome.code) in (("refused", 0), ("read", REFUSED)):
        yield f"expected {expected}"
    if "Traceback" in outcome.out + outcome.err:
        yield "a traceback"
    lines = outcome.err.splitlines()
    while lines and lines[0].startswith(_BEFORE):
        del lines[0]
    if outcome.code:
        yield from _told(lines)
    elif lines:
        yield f"words on stderr: {lines}"
    acting = {c for c in outcome.out + outcome.err if c != "\n" and unicodedata.category(c) in _ACTS}
    if acting:
        yield f"control characters {sorted(map(ascii, acting))}"
    new = [name for name in after if name not in before]
    allowed = [] if outcome.code or written is None else [name for name in new if name.split("/")[0] == written]
    if left := sorted(set(new) - set(allowed)):
        yield f"left behind: {left}"
    if gone := sorted(name for name in before if after.get(name) != before[name]):
        yield f"changed: {gone}"


def _told(lines: list[str]) -> Iterator[str]:
    if not lines or not lines[0].startswith("error: "):
        yield "no sentence"
    # Of a set that does not fit every reason is told, one a line, behind a first line that says so.
    elif len(lines) > 1 and not lines[0].endswith(":"):
        yield f"{len(lines)} lines"
    if sum(map(len, lines)) > LONGEST:
        yield f"{sum(map(len, lines))} characters"
