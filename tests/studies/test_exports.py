"""A comparison as CSV and as Markdown: the columns, and names from files that try to break out of their cell."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dcmerge import InputError
from dcmerge.checkpoints import folders, write_text
from dcmerge.evaluation import Evaluation
from dcmerge.studies.comparison import Comparison
from dcmerge.studies.exports import as_csv, as_markdown
from tests.plots.builders import comparison


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def cells(text: str) -> list[list[str]]:
    """The rows of a Markdown table, split at borders that are not escaped."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def with_task(name: str) -> Comparison:
    """The comparison with its worst task under another name."""
    found = comparison()
    rows = []
    for row in found.rows:
        if row.evaluation:
            tasks = dict(row.evaluation.tasks)
            tasks = {name: replace(tasks["birds"], task=name), "cars": tasks["cars"]}
            row = replace(row, evaluation=Evaluation(row.name, "test", tasks, 10))
        rows.append(row)
    return replace(found, rows=tuple(rows))


def test_csv_has_a_line_a_row_and_the_numbers() -> None:
    rows = parsed(as_csv(comparison()))
    assert [row["slug"] for row in rows] == ["zero-shot", "average", "ties", "slerp", "experts"]
    ties = rows[2]
    assert (ties["parameters"], ties["alpha"], ties["alpha from"]) == ("density=0.2, aggregate=mean", "0.4", "validation")
    assert float(ties["accuracy"]) == 65.0 and float(ties["normalised"]) == 81.25
    assert float(ties["accuracy low"]) < 65 < float(ties["accuracy high"])
    assert (ties["worst task"], ties["worst accuracy"]) == ("birds", "60.0") and float(ties["minus averaging"]) == 15.0
    assert (ties["merge seconds"], ties["alpha seconds"], ties["peak MiB"]) == ("1.5", "2.5", "")
    assert (ties["needs"], ties["split"], ties["images a task"]) == ("weights", "test", "10")
    assert rows[1]["peak MiB"] == "3.0" and float(ties["dirsim"]) == 0.3 and float(ties["feature drift"]) == 0.625
    assert rows[3]["error"] == "slerp merges 2 experts, got 8" and rows[3]["accuracy"] == ""


def test_markdown_has_as_many_cells_in_every_row() -> None:
    text = as_markdown(comparison())
    table = cells(text)
    assert {len(row) for row in table} == {len(table[0])} and len(table) == 2 + 5
    row = dict(zip(table[0], table[4], strict=True))
    assert row["method"] == "TIES-Merging" and row["absolute"].startswith("65.0 (") and row["normalised"] == "81.2"
    assert row["minus averaging"].startswith("+15.0 (") and row["seconds: merge + α"] == "1.5 + 2.5"
    assert row["measured on"] == "test split, 10 images a task" and row["needs"] == "weights"
    assert "failed: slerp merges 2 experts" in text and "test split, 10 images a task" in text.splitlines()[0]


ODD = ["a,b", 'say "hi"', "two\nlines", "a|b", "back\\slash|", "`code`", "<script>", "crlf\r\n|---|", "[x](http://example.org)"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_stay_in_their_cell(name: str) -> None:
    found = with_task(name)
    assert {row["worst task"] for row in parsed(as_csv(found)) if row["worst task"]} == {name}
    table = cells(as_markdown(found))
    assert {len(row) for row in table} == {len(table[0])} and len(table) == 2 + 5
    assert not re.search(r"(?<!\\)[<`\[]", "".join(row[6] for row in table))


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\n=1", "＝1", '=HYPERLINK("http://example.org")']
)
def test_a_name_is_no_formula(name: str) -> None:
    for row in parsed(as_csv(with_task(name))):
        assert row["worst task"] in ("", f"'{name}")


def test_negative_numbers_stay_numbers() -> None:
    found = comparison()
    ties = found.rows[2]
    worse = replace(ties, difference=replace(ties.difference, value=-0.1))
    rows = parsed(as_csv(replace(found, rows=(*found.rows[:2], worse))))
    assert rows[2]["minus averaging"] == "-10.0"


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "table.csv"
    write_text(target, "a\nα\n")
    assert target.read_bytes() == "a\nα\n".encode()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders.os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_text(target, "other")
    assert target.read_text() == "a\nα\n" and list(tmp_path.iterdir()) == [target]
    for bad in (tmp_path / "none" / "table.csv", tmp_path):
        with pytest.raises(InputError, match="Cannot write"):
            write_text(bad, "x")
