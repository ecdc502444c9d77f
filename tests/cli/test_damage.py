"""Damage maps from the command line, on a zoo of two tiny tasks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.cli.conftest import Run

DAMAGE = ("damage", "--zoo=demo", "--method=ties", "--by=blocks")


@pytest.fixture(autouse=True)
def folder(tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "jobs"))
    return tmp_path


def test_every_part_and_task_has_a_row_a_change(run: Run, folder: Path) -> None:
    found = run(*DAMAGE, "--scale=0.7", "--changes=expert,base,without", "--csv", folder / "cells.csv", "--json").json
    assert found["scale"] == {"value": 0.7, "origin": "given"} and found["plan"]["limit"] == 100
    cells = {(cell["part"], cell["task"], cell["change"]) for cell in found["cells"]}
    assert cells == {(p, t, c) for p in found["parts"] for t in found["tasks"] for c in ("expert", "base", "without")}
    with open(folder / "cells.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(cells)
    best = found["repaired"][1]
    assert len(best["parts"]) == 1 and best["extra numbers"] > 0


def test_the_text_says_what_was_looked_at(run: Run) -> None:
    done = run(*DAMAGE, "--scale=auto")
    assert done.code == 0
    for words in (
        "Damage map of TIES-Merging on the zoo demo, α =",
        "validation",
        "put back to the base",
        "all at once",
        "Repair:",
    ):
        assert words in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--changes=expert,up",), "changes: expected some of expert, base, without, got 'up'"),
        (("--limit=1",), "an integer of at least 2"),
        (("--background", "--csv=x.csv"), "expected --background with --zoo NAME"),
    ],
)
def test_what_no_map_can_be_made_of_is_one_line(run: Run, options: tuple[str, ...], message: str) -> None:
    done = run(*DAMAGE, *options)
    assert done.code == 2 and message in done.err and len(done.err.splitlines()) == 1
