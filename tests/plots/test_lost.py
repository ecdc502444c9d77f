"""The confusion map: counts of one model, and what the merge changes, red where it is worse."""

from __future__ import annotations

import torch

from dcmerge.plots.lost import CHANGE, confusion_map
from dcmerge.studies.lost import Answers, TaskAnswers

LABELS = torch.tensor([0, 0, 1, 1, 2])


def answers(*predicted: int) -> Answers:
    return Answers(torch.tensor(predicted), torch.zeros(5, dtype=torch.float64))


def test_counts_and_their_change() -> None:
    one = TaskAnswers("t", ("a", "b", "c"), LABELS, answers(0, 0, 0, 0, 0), answers(0, 0, 1, 2, 2), answers(0, 1, 1, 1, 2))
    (expert,) = confusion_map(one, "expert", "Tests").data
    assert expert.z == ([2, 0, 0], [0, 1, 1], [0, 0, 1])
    figure = confusion_map(one, CHANGE, "Tests")
    (change,) = figure.data
    assert change.customdata == ([-1, 1, 0], [0, 1, -1], [0, 0, 0])
    assert change.z == ([1, 1, 0], [0, -1, -1], [0, 0, 0]), "fewer right is worse, like more wrong"
    assert "What the merge changes about the mistakes on Tests (5 images)" in figure.layout.title.text
