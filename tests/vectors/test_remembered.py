"""A set that was examined once is opened without reading its values, as long as its files stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcmerge.errors import IncompatibleSet
from dcmerge.vectors.cache import Store
from dcmerge.vectors.compatibility import Report
from dcmerge.vectors.remembered import remembered_report
from dcmerge.vectors.task_vectors import TaskVectors
from tests.builders import full_set, random_deltas, random_tensors, write


def files(vectors: TaskVectors) -> dict:
    assert vectors.base is not None
    return {"base": vectors.base.path, "experts": {task: one.path for task, one in vectors.experts.items()}}


def test_the_second_opening_has_the_same_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMERGE_CACHE", str(tmp_path / "cache"))
    deltas = random_deltas(2, seed=1)
    deltas["task1"] = deltas["task0"]  # a finding that only the values tell
    paths = files(full_set(tmp_path / "models", deltas))
    first, again = (TaskVectors.open(**paths, remembered=True).report for _ in range(2))
    assert first == again and [finding.what for finding in again.warnings] == ["identical"]
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


def test_a_report_is_read_back_and_not_made_again(tmp_path: Path) -> None:
    store, report = Store(tmp_path / "cache"), full_set(tmp_path / "models", random_deltas(2, seed=1)).report
    assert remembered_report(store, "state", lambda: report) == report
    assert remembered_report(store, "state", lambda: pytest.fail("examined again")) == report
    other = Report(("cats",), (), ())
    assert remembered_report(store, "another state", lambda: other) == other
    assert remembered_report(None, "state", lambda: other) == other


def test_a_file_that_was_replaced_is_examined_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMERGE_CACHE", str(tmp_path / "cache"))
    paths = files(full_set(tmp_path / "models", random_deltas(2, seed=1)))
    TaskVectors.open(**paths, remembered=True)
    broken = random_tensors(9)
    name = next(name for name, value in broken.items() if value.is_floating_point())
    broken[name] = torch.full_like(broken[name], torch.nan)
    write(paths["experts"]["task1"], broken)
    for _ in range(2):
        with pytest.raises(IncompatibleSet, match="NaN or Inf"):
            TaskVectors.open(**paths, remembered=True)
