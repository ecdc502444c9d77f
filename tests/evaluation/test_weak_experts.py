"""An expert that does not beat the base on its own task is named, with both accuracies and what they were measured on."""

from __future__ import annotations

import torch

from dcmerge.evaluation import Evaluation, TaskAccuracy, weak_experts


def measured(model: str, **right: int) -> Evaluation:
    rows = {task: TaskAccuracy(task, torch.arange(100) < count) for task, count in right.items()}
    return Evaluation(model, "val", rows)


def test_only_experts_that_do_not_beat_the_base_are_named() -> None:
    zero_shot, experts = measured("zero-shot", cars=60, dtd=40, sun=62), measured("experts", cars=61, dtd=40, sun=21)
    equal, worse = weak_experts(zero_shot, experts)
    assert equal.startswith("warning: the expert of dtd does not know its task: it is right on 40.0 % of its images")
    assert "expert of sun" in worse and "right on 21.0 %" in worse and "62.0 % (validation split, 100 images a task)" in worse


def test_good_experts_are_not_mentioned() -> None:
    assert weak_experts(measured("zero-shot", a=10), measured("experts", a=90)) == ()
