"""Rows as runs: what a run says of a row, and that a store that cannot be used costs no row."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge.evaluation import Bench
from dcmerge.runs import RunStore
from dcmerge.studies.comparison import compare
from dcmerge.studies.measuring import Row
from dcmerge.studies.recording import CHECKPOINT, keep_rows
from tests.builders import tiny_bench


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "state"))
    return tiny_bench(tmp_path / "models")


def test_every_row_of_a_comparison_is_a_run(bench: Bench) -> None:
    found = compare(bench, ["task_arithmetic", "ties"], {"ties": {"density": 0.5}}, limit=4, val_limit=3)
    assert keep_rows(bench, "tiny", "comparison", found.rows, "group") == ""
    assert keep_rows(bench, "tiny", "comparison", found.rows, "group") == ""  # a row that comes twice is one run
    runs = {run.variant or run.method: run for run in RunStore().find(set="tiny", group="group")}
    assert set(runs) == {row.name for row in found.rows}
    ties, row = runs["ties"], found.row("ties")
    assert ties.accuracies == {task: one.accuracy for task, one in row.measured.tasks.items()}
    assert (ties.values["density"], ties.alpha, ties.alpha_origin) == (0.5, row.scale.value, row.scale.origin)
    assert ties.recipe["method"] == "ties" and ties.recipe["scale"] == ties.alpha and runs["experts"].recipe is None
    assert ties.tried == f"α: best of {len(row.scale.curve)} on the {row.scale.origin}" and runs["average"].tried == ""
    assert runs["task_arithmetic-0.3"].method == "task_arithmetic" and runs["task_arithmetic-0.3"].alpha == 0.3
    again = RunStore().paired(ties, runs["average"])
    assert (again.value, again.low, again.high) == (row.difference.value, row.difference.low, row.difference.high)


def test_a_saved_model_is_told_from_a_method_and_a_failed_row_is_no_run(bench: Bench) -> None:
    measured = bench.zero_shot(limit=4)
    rows = [Row("my/ties.safetensors", "my", evaluation=measured), Row("dare", "DARE", error="no memory")]
    assert keep_rows(bench, "tiny", "evaluation", rows) == ""
    [run] = RunStore().find()
    assert (run.method, run.variant, run.recipe) == (CHECKPOINT, "my/ties.safetensors", None)


def test_a_store_that_cannot_be_used_is_told(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "runs.sqlite3").write_bytes(b"no database at all " * 200)
    told = keep_rows(bench, "tiny", "evaluation", [Row("zero-shot", "z", evaluation=bench.zero_shot(limit=4))])
    assert "damaged or foreign" in told and "nothing was recorded" in told
