"""Objectives by hand: two tasks, of which one expert is right on all images and the other on half of them."""

from __future__ import annotations

import math

import pytest
import torch

from dcmerge.evaluation import wilson_interval
from dcmerge.evaluation.objectives import MEAN, WORST, Yardstick

STICK = Yardstick({"a": 1.0, "b": 0.5})


def hits(a: int, b: int, images: int = 10) -> dict[str, torch.Tensor]:
    """That many of the images of each task are right, the first ones."""
    return {"a": torch.arange(images) < a, "b": torch.arange(images) < b}


def test_mean_and_worst_divide_by_the_experts() -> None:
    found = hits(8, 2)  # 0.8 / 1 and 0.2 / 0.5
    assert STICK.estimate(found, MEAN).value == pytest.approx(0.6)
    assert STICK.estimate(found, WORST).value == pytest.approx(0.4)
    assert STICK.worst_task(found) == "b"


def test_intervals_are_those_of_the_hits_divided_alike() -> None:
    worst = STICK.estimate(hits(8, 2), WORST)
    low, high = wilson_interval(2, 10)
    assert (worst.low, worst.high) == pytest.approx((low / 0.5, high / 0.5))
    mean, (low_a, _) = STICK.estimate(hits(8, 2), MEAN), wilson_interval(8, 10)
    assert mean.value - mean.low == pytest.approx(math.hypot(0.8 - low_a, 0.4 - low / 0.5) / 2)


def test_an_expert_without_a_hit_leaves_plain_accuracies() -> None:
    assert Yardstick({"a": 1.0, "b": 0.0}).estimate(hits(8, 2), MEAN).value == pytest.approx(0.5)


def test_the_yardstick_is_made_of_the_experts_own_hits() -> None:
    assert Yardstick.of(hits(10, 5)).experts == {"a": 1.0, "b": 0.5}


def test_a_difference_is_paired() -> None:
    more, less = hits(60, 20, 100), hits(50, 20, 100)
    found = STICK.difference(more, less, MEAN)
    assert found.value == pytest.approx(0.05) and found.low > 0
    same = STICK.difference(less, less, MEAN)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_difference_counts_only_the_images_that_the_first_saw() -> None:
    few, many = hits(5, 5, 10), hits(5, 5, 1000)
    assert STICK.difference(few, many, WORST).value == 0
