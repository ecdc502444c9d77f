"""One point: α is found on the ladder, what is surely beaten sees no more images."""

from __future__ import annotations

import pytest
import torch

from dcmerge.evaluation import Bench, Model
from dcmerge.evaluation.objectives import MEAN, WORST, Yardstick
from dcmerge.evaluation.ordered import OrderedImages
from dcmerge.studies.small_sets import tiny_bench
from dcmerge.studies.sweep.race import Course, Look, place_of, race, rung


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


class FewAtFirst(OrderedImages):
    """The same images in three steps, though they are only fifteen."""

    def shares(self, least: int = 3) -> tuple[float, ...]:
        return super().shares(least)


def course(bench: Bench, objectives: tuple[str, ...] = (MEAN,), *, early: bool = True) -> Course:
    images = FewAtFirst(bench, "val")
    return Course(images, Yardstick.of(images.experts()), objectives, early)


def towards(bench: Bench, task: str = "task0"):
    """base + α · one expert's task vector, as a model of α."""
    vectors = bench.vectors
    deltas = {name: vectors.delta(name, task) for name in vectors.parameters}
    return lambda scale: bench.model(deltas, scale)


def test_rungs_have_two_digits_and_lead_back_to_their_places() -> None:
    assert [rung(place) for place in (-20, -4, 0, 2, 6, 20)] == [0.1, 0.63, 1.0, 1.3, 2.0, 10.0]
    assert all(place_of(rung(place)) == place for place in range(-40, 21))


def test_the_best_alpha_of_those_tried_comes_first(bench: Bench) -> None:
    given = course(bench)
    arms, stopped = race(given, towards(bench), [], None, [])
    whole = [arm for arm in arms if arm.images == given.images.images()]
    scores = {arm.scale: given.yardstick.estimate(arm.hits, MEAN).value for arm in whole}
    assert not stopped and arms[0].scale == max(sorted(scores), key=scores.__getitem__)
    assert len({arm.scale for arm in arms}) == len(arms) >= 9


def test_a_good_start_needs_fewer_looks(bench: Bench) -> None:
    given = course(bench)
    cold, _ = race(given, towards(bench), [], None, [])
    warm, _ = race(given, towards(bench), [], cold[0].scale, [])
    assert len(warm) < len(cold)


def test_given_scales_are_looked_at_and_no_others(bench: Bench) -> None:
    arms, _ = race(course(bench), towards(bench), [0.7], None, [])
    assert [arm.scale for arm in arms] == [0.7]


def test_a_point_stops_where_a_rival_is_surely_better(bench: Bench) -> None:
    given = course(bench)
    nothing = {task: torch.zeros(15, dtype=torch.bool) for task in bench.tasks}
    everything = {task: ~hits for task, hits in nothing.items()}
    wrong = lambda scale: Model({name: torch.zeros_like(value) for name, value in bench.base_weights().items()})  # noqa: E731
    arms, stopped = race(given, wrong, [1.0], None, [nothing])
    assert not stopped and arms[0].images == 15
    arms, stopped = race(given, wrong, [1.0], None, [nothing, everything])
    assert stopped and arms[0].images < 15
    arms, stopped = race(course(bench, early=False), wrong, [1.0], None, [everything])
    assert not stopped and arms[0].images == 15


def test_a_rival_must_be_better_in_every_objective(bench: Bench) -> None:
    """Of two objectives one alone stops nobody."""
    look = Look(course(bench, (MEAN, WORST)), towards(bench))
    look.hits = {1.0: {"task0": torch.ones(15, dtype=torch.bool), "task1": torch.zeros(15, dtype=torch.bool)}}
    better_mean = {"task0": torch.ones(15, dtype=torch.bool), "task1": torch.ones(15, dtype=torch.bool)}
    assert look.is_beaten([better_mean])
    only_worst = {task: torch.arange(15) < 7 for task in ("task0", "task1")}
    assert not look.is_beaten([only_worst])
