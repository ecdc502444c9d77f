"""Rows survive the journal without loss."""

from __future__ import annotations

import json

import torch

from dcmerge.comparison import Row, Seconds
from dcmerge.diagnosis import DirSim
from dcmerge.evaluation import Difference, Drift, Evaluation, Scale, TaskAccuracy, paired_difference
from dcmerge.jobs.rows import row_data, row_from


def through_json(row: Row) -> Row:
    return row_from(json.loads(json.dumps(row_data(row))))


def evaluation(seed: int) -> Evaluation:
    draw = torch.Generator().manual_seed(seed)
    hits = {task: torch.rand(20, generator=draw) > 0.5 for task in "ab"}
    return Evaluation("m", "test", {task: TaskAccuracy(task, own, 0.75) for task, own in hits.items()}, 20)


def test_a_full_row_comes_back_as_it_was() -> None:
    row = Row("ties", "TIES", {"density": 0.2, "rank": None, "on": True}, Scale(0.3, "here", ((0.1, 0.5), (0.3, 0.6))),
              evaluation(0), Seconds(1.0, 2.0, 3.0), Difference(0.1, 0.0, 0.2), None, 7, DirSim(0.5, {"a": 0.4, "b": 0.6}),
              Drift(("a", "b"), ("block 0", "embedding"), ((1.0, 2.0), (3.0, 4.0)), ((2.0, 2.0), (3.0, 3.0)), 64))  # fmt: skip
    back = through_json(row)
    assert back.to_dict() == row.to_dict()
    assert (back.scale, back.seconds, back.difference, back.dirsim, back.drift) == (
        row.scale, row.seconds, row.difference, row.dirsim, row.drift)  # fmt: skip
    for task, own in row.evaluation.tasks.items():
        assert torch.equal(back.evaluation.tasks[task].hits, own.hits)


def test_differences_can_still_be_drawn() -> None:
    first, second = Row("a", "A", evaluation=evaluation(1)), Row("b", "B", evaluation=evaluation(2))
    found = paired_difference(through_json(first).evaluation, through_json(second).evaluation)
    assert found == paired_difference(first.evaluation, second.evaluation)


def test_a_row_that_failed_comes_back_with_its_reason() -> None:
    assert through_json(Row("x", "X", error="out of memory")).error == "out of memory"
