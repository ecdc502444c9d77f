"""A plan is refused before anything is computed, and known again by what decides its points."""

from __future__ import annotations

from typing import Any

import pytest

from dcmerge import InputError
from dcmerge.studies.sweep import Plan
from dcmerge.studies.sweep.points import front


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"sampler": "annealing"}, "sampler: expected one of grid, random, tpe"),
        ({"trials": 0}, "trials: expected an integer from 1"),
        ({"trials": True}, "trials: expected an integer from 1"),
        ({"seed": -1}, "seed: expected an integer from 0"),
        ({"objectives": ()}, "objective: expected some of mean, worst, cost"),
        ({"objectives": ("mean", "mean")}, "objective: expected some of mean, worst, cost"),
        ({"objectives": ("beauty",)}, "objective: expected some of mean, worst, cost"),
        ({"objectives": ("cost",)}, "expected an accuracy beside cost"),
        ({"scale": float("nan")}, "scale: expected a number"),
        ({"limit": 0}, "limit: expected at least 1 image"),
        ({"test": "yes"}, "test: expected true or false"),
        ({"parameters": {"density": 0.5}}, "density, which is set as well"),
        ({"mix": {"weight": {"a": 1}}}, "mix: expected weights, depths, depth"),
        ({"mix": {"weights": {"a": "x"}}}, "weight of a: expected a number"),
        ({"parameters": {"speed": 1}}, "unknown parameter 'speed'"),
    ],
)
def test_what_cannot_run_is_refused(about: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Plan.of("ties", ["density"], **about)


@pytest.mark.parametrize(
    ("over", "mix", "words"),
    [
        (["weight.a"], {"weights": {"a": 0.5}}, "weights that are not set, got weight.a, which is set as well"),
        (["depth.last"], {"depth": [1, 2, 3]}, "a constant or linear profile of α, got 3 blocks of it as well"),
        (["weight."], {}, "expected one of .*weight.EXPERT, depth.first, depth.last for ties, got 'weight.'"),
        (["depth.middle"], {}, "got 'depth.middle'"),
        (["weight.a=0:x"], {}, "weight.a: expected a number"),
    ],
)
def test_what_the_mixer_cannot_vary_is_refused(over: list[str], mix: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Plan.of("ties", over, mix=mix)


def test_an_expert_may_have_an_equals_sign_in_its_name() -> None:
    (axis,) = Plan.of("ties", ["weight.a=b=0:1:3"]).axes
    assert (axis.name, axis.values(3)) == ("weight.a=b", (0.0, 0.5, 1.0))


def test_a_plan_without_a_mix_has_the_key_that_it_had_before_there_was_one() -> None:
    assert Plan.of("ties", ["density"]).key == "9ba71d42ae1a50a8"
    assert Plan.of("ties", ["density"], mix={"weights": {"a": 2}}).key != Plan.of("ties", ["density"]).key


def test_a_fixed_alpha_cannot_be_varied() -> None:
    with pytest.raises(InputError, match="no fixed α where α is varied"):
        Plan.of("ties", ["scale"], scale=1.0)


def test_more_trials_of_a_sampler_are_the_same_sweep() -> None:
    assert Plan.of("ties", ["density"], sampler="tpe").key == Plan.of("ties", ["density"], sampler="tpe", trials=99).key
    assert Plan.of("ties", ["density"]).key != Plan.of("ties", ["density"], trials=20).key
    assert Plan.of("ties", ["density"], sampler="tpe").key != Plan.of("ties", ["density"], sampler="tpe", limit=9).key


def test_the_front_by_hand() -> None:
    """Accuracy and seconds: point 2 is beaten by point 0, the others are not."""
    assert front({0: (0.9, 2.0), 1: (0.8, 1.0), 2: (0.85, 3.0), 3: (0.95, 9.0)}, ("mean", "cost")) == [0, 1, 3]
    assert front({0: (0.5, 0.5), 1: (0.5, 0.5)}, ("mean", "worst")) == [0, 1]
