"""Intervals, normalised accuracies and paired differences on numbers that can be checked."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcmerge.errors import InputError
from dcmerge.evaluation import Difference, Evaluation, TaskAccuracy, paired_difference, wilson_interval


def hits(correct: int, total: int) -> torch.Tensor:
    return torch.arange(total) < correct


def evaluation(*scores: tuple[int, int], experts: tuple[float | None, ...] | None = None) -> Evaluation:
    experts = experts or (None,) * len(scores)
    rows = {
        f"task{t}": TaskAccuracy(f"task{t}", hits(*score), expert)
        for t, (score, expert) in enumerate(zip(scores, experts, strict=True))
    }
    return Evaluation("model", "test", rows)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),
        (5, 10, 0.23659, 0.76341),
        (10, 10, 0.72247, 1.0),
        (81, 263, 0.25529, 0.36618),
        (1, 1, 0.20655, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_of_known_proportions(correct: int, total: int, low: float, high: float) -> None:
    """81 of 263 is the example of Newcombe 1998, table I; the others are from the formula by hand."""
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_proportion(score: tuple[int, int]) -> None:
    correct, total = score
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total + 1e-12 and correct / total - 1e-12 <= high <= 1 and low < high
    assert wilson_interval(total - correct, total) == pytest.approx((1 - high, 1 - low), abs=1e-9)
    narrower = wilson_interval(4 * correct, 4 * total)
    assert narrower[1] - narrower[0] < high - low


def test_a_task() -> None:
    task = TaskAccuracy("mnist", hits(3, 4), expert=0.8)
    assert (task.accuracy, task.images, task.normalised) == (0.75, 4, pytest.approx(0.9375))
    assert task.interval == wilson_interval(3, 4)
    assert TaskAccuracy("mnist", hits(3, 4)).normalised is None
    assert TaskAccuracy("mnist", hits(1, 4), expert=0.0).normalised is None
    assert TaskAccuracy("empty", hits(0, 0)).accuracy == 0


def test_the_mean_of_ratios_is_not_the_ratio_of_means() -> None:
    """0.9/1.0 and 0.1/0.2: the mean of the ratios is 0.7, the ratio of the means 0.8333."""
    found = evaluation((9, 10), (1, 10), experts=(1.0, 0.2))
    assert found.mean == pytest.approx(0.5) and found.mean_normalised == pytest.approx(0.7)
    assert found.worst.task == "task1"


def test_without_every_expert_nothing_is_normalised() -> None:
    assert evaluation((9, 10), (1, 10), experts=(1.0, None)).mean_normalised is None
    assert evaluation((9, 10), (1, 10), experts=(1.0, 0.0)).mean_normalised is None


def test_what_it_was_measured_on() -> None:
    assert evaluation((1, 10), (2, 10)).measured_on == "test split, 10 images a task"
    assert evaluation((1, 10), (2, 30), (2, 20)).measured_on == "test split, 10 to 30 images a task"
    assert Evaluation("m", "val", evaluation((1, 3)).tasks).measured_on == "validation split, 3 images a task"


def test_plain_numbers_for_json() -> None:
    plain = json.loads(json.dumps(evaluation((9, 10), (1, 4), experts=(1.0, 0.5)).to_dict()))
    assert plain["tasks"]["task1"] == {
        "accuracy": 0.25,
        "interval": list(wilson_interval(1, 4)),
        "normalised": 0.5,
        "images": 4,
        "joint": None,
    }
    assert plain["mean"] == pytest.approx(0.575) and plain["mean_normalised"] == pytest.approx(0.7)


def test_a_paired_difference_of_equal_models_is_nothing() -> None:
    model = evaluation((60, 100), (10, 50))
    assert paired_difference(model, model) == Difference(0.0, 0.0, 0.0)
    assert not paired_difference(model, model).excludes_zero


def test_a_paired_difference_of_hand_made_hits() -> None:
    """The better model is right on the same images and on 20 of 100 more: 0.2 ± 1.96 · 0.04, as of a binomial."""
    found = paired_difference(evaluation((70, 100)), evaluation((50, 100)))
    assert found.value == pytest.approx(0.2) and found.excludes_zero
    half = 1.96 * math.sqrt(0.2 * 0.8 / 100)
    assert (found.low, found.high) == (pytest.approx(0.2 - half, abs=0.015), pytest.approx(0.2 + half, abs=0.015))
    swapped = paired_difference(evaluation((50, 100)), evaluation((70, 100)))
    assert swapped.value == pytest.approx(-0.2) and swapped.high < 0 and swapped.excludes_zero


def test_pairing_matters() -> None:
    """Two models of equal accuracy that are right on the same images, or on other ones."""
    other = Evaluation("other", "test", {"task0": TaskAccuracy("task0", ~hits(50, 100))})
    same, mixed = (paired_difference(evaluation((50, 100)), b) for b in (evaluation((50, 100)), other))
    assert same.low == same.high == 0 and mixed.low < -0.1 and mixed.high > 0.1


def test_every_task_counts_the_same() -> None:
    """1 of 10 more and 100 of 1000 more are both 0.1, so the mean is 0.1, whatever the number of images."""
    found = paired_difference(evaluation((6, 10), (600, 1000)), evaluation((5, 10), (500, 1000)))
    assert found.value == pytest.approx(0.1)


def test_the_bootstrap_is_the_same_at_every_call() -> None:
    a, b = evaluation((55, 100), (40, 80)), evaluation((50, 100), (45, 80))
    assert paired_difference(a, b) == paired_difference(a, b) != paired_difference(a, b, seed=1)


@pytest.mark.parametrize("other", [evaluation((5, 11)), evaluation((5, 10), (5, 10))], ids=["images", "tasks"])
def test_a_difference_of_other_images_is_refused(other: Evaluation) -> None:
    with pytest.raises(InputError, match="same images"):
        paired_difference(evaluation((5, 10)), other)


def test_interval_of_the_mean_over_tasks() -> None:
    one = TaskAccuracy("a", torch.arange(50) < 30)
    alone, twice = (Evaluation("m", "val", dict.fromkeys(names, one)) for names in ("a", "ab"))
    assert alone.mean_interval == pytest.approx(wilson_interval(30, 50))
    low, high = wilson_interval(30, 50)
    assert twice.mean_interval == pytest.approx((0.6 - (0.6 - low) / 2**0.5, 0.6 + (high - 0.6) / 2**0.5))
