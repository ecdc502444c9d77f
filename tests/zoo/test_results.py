"""Our numbers on the demo, read from the file that ``compare --json`` makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dcmerge.zoo import DATA
from dcmerge.zoo.results import FILE, demo_results


def test_the_kept_comparison() -> None:
    if not (DATA / FILE).exists():
        pytest.skip("no comparison was made of this edition of the demo yet")
    found = demo_results()
    assert found.measured_on.startswith("test split")
    assert found.rows["zero-shot"].accuracy < found.rows["average"].accuracy < found.rows["experts"].accuracy
    assert found.rows["average"].scale == 1.0 and found.rows["dc_merge"].parameters["smoothing"] == "auto"


@pytest.mark.parametrize(("compared", "shown"), [("a1", True), ("b2", False), (None, False)])
def test_numbers_of_another_edition_are_not_shown(tmp_path: Path, compared: str | None, shown: bool) -> None:
    (tmp_path / "facts.json").write_text(json.dumps({"edition": "a1"}))
    (tmp_path / FILE).write_text(json.dumps({"edition": compared, "measured_on": "test split", "rows": []}))
    assert (demo_results(tmp_path) is not None) == shown


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"rows": [{}]}', '{"rows": [], "measured_on"'])
def test_no_file_or_a_broken_one_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / FILE).write_text(text)
    assert demo_results(tmp_path) is None


def test_a_method_that_failed_has_no_row(tmp_path: Path) -> None:
    failed = {"name": "slerp", "accuracy": None, "scale": None, "parameters": {}}
    (tmp_path / "facts.json").write_text('{"edition": "a1"}')
    (tmp_path / FILE).write_text(json.dumps({"edition": "a1", "measured_on": "test split", "rows": [failed]}))
    assert demo_results(tmp_path).rows == {}
