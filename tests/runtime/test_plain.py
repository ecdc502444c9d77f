"""Rows on disk: nothing is lost, damage is bad input."""

from __future__ import annotations

import json

import pytest
import torch

from dcmerge import InputError
from dcmerge.evaluation import Difference, Evaluation, Scale, TaskAccuracy, paired_difference
from dcmerge.runtime.plain import from_plain, to_plain
from dcmerge.studies.comparison import Comparison
from dcmerge.studies.measuring import Row, Seconds


def _row() -> Row:
    hits = torch.rand(30, generator=torch.Generator().manual_seed(0)) < 0.5
    tasks = {"a": TaskAccuracy("a", hits, 1 / 3), "b": TaskAccuracy("b", ~hits)}
    scale = Scale(0.30000000000000004, "validation", ((0.1, 0.2), (0.3, 1 / 7)))
    return Row(
        "ties",
        "TIES",
        {"density": 0.2, "aggregate": "mean", "flag": True},
        scale,
        Evaluation("ties", "test", tasks, 30, 0),
        Seconds(0.1, 1 / 3, 2.0),
        Difference(0.1, -0.2, 0.3),
    )


def _through_json(value: object) -> object:
    return json.loads(json.dumps(to_plain(value)))


def test_a_row_comes_back_without_loss() -> None:
    row = _row()
    back = from_plain(Row, _through_json(row))
    assert back.to_dict() == row.to_dict()
    assert (back.scale, back.seconds, back.difference) == (row.scale, row.seconds, row.difference)
    for name, task in row.evaluation.tasks.items():
        assert torch.equal(back.evaluation.tasks[name].hits, task.hits)
        assert back.evaluation.tasks[name].hits.dtype == torch.bool
    assert paired_difference(back.evaluation, row.evaluation).high == 0


def test_hits_are_stored_compactly() -> None:
    assert set(_through_json(_row())["evaluation"]["tasks"]["a"]["hits"]) == {"0", "1"}


def test_a_failed_row_and_a_comparison_come_back() -> None:
    failed = Row("knots", "KnOTS", error="needs LoRA experts")
    found = from_plain(Comparison, _through_json(Comparison("val", None, 40, (_row(), failed))))
    assert (found.split, found.limit, found.val_limit) == ("val", None, 40)
    assert found.row("knots").error == failed.error and found.row("knots").evaluation is None


def test_fields_of_other_versions_do_no_harm() -> None:
    data = _through_json(_row())
    del data["seconds"]
    back = from_plain(Row, {**data, "of_the_future": 1})
    assert back.seconds is None and back.name == "ties"


@pytest.mark.parametrize("data", [None, 3, {}, {"name": "ties", "title": "TIES", "evaluation": {"tasks": 3}}])
def test_other_data_is_refused(data: object) -> None:
    with pytest.raises(InputError, match="Row"):
        from_plain(Row, data)
