"""The training loop and the losses of methods that adapt to images, and what holds for every such method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dcmerge import Cancelled, InputError
from dcmerge.evaluation import Bench, Split, choose_scale
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods import merged_deltas, methods, planned
from dcmerge.methods.adaptation import adapt, entropy, needed, starting_scale, stepped
from tests.builders import relative_error, tiny_bench

#: Every way through a method that descends a loss on images, from a start that is given.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("adamerging", {"start": 0.3}),
    ("adamerging", {"start": 0.3, "coefficients": "task", "plus_plus": True, "clamp": False}),
    ("adarank", {"start": 0.3}),
    ("adarank", {"origin": "cart"}),
    ("adarank", {"origin": "tsv_m", "start": 0.3}),
    ("concrete", {"start": 0.3}),
    ("concrete", {"start": 0.3, "final": "discrete"}),
    ("concrete", {"start": 0.3, "stage": "adamerging"}),
    ("surgery", {"merged_scale": 0.3, "rank": 4}),
    ("intervmerge", {"merged_scale": 0.3}),
    ("intervmerge", {"merged_scale": 0.3, "variant": "mini"}),
    ("doge", {"stage": "adamerging", "iterations": 3}),
]
every_case = pytest.mark.parametrize(("slug", "parameters"), CASES, ids=lambda value: str(value).replace("'", ""))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def with_steps(slug: str, parameters: Mapping[str, Any], steps: int, **more: Any) -> dict[str, Any]:
    return {**parameters, "adaptation_steps" if slug == "doge" else "iterations": steps, **more}


def everything(plan: Any) -> Iterator[Tensor]:
    """Every tensor of a result: the deltas, and what its tasks add."""
    yield from (plan.delta(layer) for layer in plan.layers)
    for module in plan.modules().values():
        if module.repair:
            yield from module.repair.keywords.values()
        yield from (part for edit in module.edits.values() for part in edit.args[0].parts)


def unlabelled(bench: Bench) -> Bench:
    """The same images, all of them said to be of the first class."""
    tasks = {
        name: replace(task, splits={s: Split(own.images, torch.zeros_like(own.labels)) for s, own in task.splits.items()})
        for name, task in bench.tasks.items()
    }
    return Bench(bench.encoder, tasks, bench.vectors)


# The loop


def quadratic(bench: Bench, iterations: int, **how: Any) -> tuple[Calibration, Tensor]:
    """x after descending (x − b)² from 3, the batches b = 0, 1, 2 …"""
    calibration, x = Calibration(bench, cancelled=how.pop("cancelled", None)), torch.tensor(3.0)
    batches = how.pop("batches", iter(range(100)))
    adapt(calibration, [x], lambda b: (x - b) ** 2, batches, iterations=iterations, learning_rate=0.1, what="x", **how)
    return calibration, x


def test_the_steps_are_adams(bench: Bench) -> None:
    calibration, found = quadratic(bench, 5)
    x, m, v, losses = 3.0, 0.0, 0.0, []
    for step in range(5):
        losses.append((x - step) ** 2)
        gradient = 2 * (x - step)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x -= 0.1 * (m / (1 - 0.9 ** (step + 1))) / (math.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
    assert found.item() == pytest.approx(x, rel=1e-5)
    assert calibration.curve == pytest.approx(losses, rel=1e-5)
    assert not found.requires_grad


def test_without_steps_nothing_is_asked_for(bench: Bench) -> None:
    def batches() -> Iterator[int]:
        raise AssertionError("no batch is needed")
        yield 0

    calibration, x = quadratic(bench, 0, batches=batches(), after_step=lambda: x.zero_())
    assert x.item() == 3 and not calibration.curve and not x.requires_grad


def test_no_batch_is_drawn_that_is_not_used(bench: Bench) -> None:
    batches = iter(range(100))
    quadratic(bench, 4, batches=batches)
    assert next(batches) == 4


def test_what_follows_a_step_may_change_the_values(bench: Bench) -> None:
    x = torch.tensor([0.0, 5.0])
    adapt(
        Calibration(bench),
        [x],
        lambda b: x.sum(),
        range(9),
        iterations=9,
        learning_rate=0.4,
        what="x",
        after_step=lambda: x.clamp_(0, 4),
    )
    assert x[0] == 0 and 0 < x[1] < 4


def test_cancelling_stops_between_two_steps(bench: Bench) -> None:
    asked: list[int] = []
    calibration = Calibration(bench, cancelled=lambda: asked.append(0) or len(asked) > 2)
    x = torch.tensor(3.0)
    with pytest.raises(Cancelled):
        adapt(calibration, [x], lambda b: x**2, range(9), iterations=9, learning_rate=0.1, what="x")
    assert len(calibration.curve) == 2 and x.item() == pytest.approx(2.8, abs=1e-2)


def test_progress_counts_the_steps(bench: Bench) -> None:
    told: list[tuple[float, str]] = []
    x = torch.tensor(3.0)
    adapt(
        Calibration(bench, lambda *step: told.append(step)),
        [x],
        lambda b: x**2,
        range(9),
        iterations=2,
        learning_rate=0.1,
        what="learning x",
    )
    assert told == [(0.0, "learning x: step 1 of 2"), (0.5, "learning x: step 2 of 2")]


# The loss and the start


def test_the_entropy_is_that_of_every_tasks_own_head(bench: Bench) -> None:
    weights, images = bench.expert_weights("task0"), next(Calibration(bench).batches(15))
    total = 0.0
    for task, batch in images.items():
        logits = bench.logit_scale.value * bench.encoder.encode(weights, batch).double() @ bench.tasks[task].head.double().T
        p = logits.softmax(dim=-1)
        total += -(p * p.log()).sum(dim=-1).mean().item()
    assert entropy(Calibration(bench), weights, images).item() == pytest.approx(total, rel=1e-4)


def test_the_entropy_of_equal_classes_is_the_logarithm_of_their_number(bench: Bench) -> None:
    tasks = {name: replace(task, head=task.head[:1].expand(3, -1)) for name, task in bench.tasks.items()}
    equal = Calibration(Bench(bench.encoder, tasks, bench.vectors))
    found = entropy(equal, bench.base_weights(), next(equal.batches(4)))
    assert found.item() == pytest.approx(2 * math.log(3), rel=1e-5)


def test_weights_without_a_delta_stay_the_bases() -> None:
    base = {"a": torch.ones(2), "b": torch.ones(2)}
    found = stepped(base, {"a": torch.ones(2), "of the text tower": torch.ones(2)})
    assert found.keys() == base.keys() and found["a"].tolist() == [2, 2] and found["b"] is base["b"]


def test_the_start_is_the_one_wanted_or_the_best_on_validation(bench: Bench) -> None:
    merged = dict(merged_deltas(bench.vectors, "task_arithmetic"))
    assert starting_scale(Calibration(bench), merged, 0.0) == 0
    assert starting_scale(Calibration(bench), merged, None) == choose_scale(bench, merged, limit=100).value


def test_a_set_without_images_is_refused_in_one_sentence(bench: Bench) -> None:
    with pytest.raises(InputError, match="^this needs unlabeled images of the tasks, got a set without images$"):
        needed(None, "this")
    calibration = Calibration(bench)
    assert needed(calibration, "this") is calibration


# Every method


def test_every_method_that_trains_on_images_is_among_the_cases() -> None:
    needs = {slug: set(method.needs) for slug, method in methods().items()}
    # Surgery and IntervMerge read labels for the α of what they repair alone; their cases give one.
    trained = {slug for slug, own in needs.items() if {"training", "images"} <= own and ("labels" not in own or "task" in own)}
    assert trained | {"doge"} == {slug for slug, _ in CASES}


@every_case
def test_the_curve_has_one_value_a_step_and_none_without_steps(bench: Bench, slug: str, parameters: dict) -> None:
    turns = 2 if parameters.get("stage") == "adamerging" and slug == "concrete" else 1
    for steps in (0, 1, 3):
        plan = planned(bench.vectors, slug, with_steps(slug, parameters, steps, batch=4), bench=bench)
        assert len(plan.curve) == turns * steps and all(math.isfinite(loss) for loss in plan.curve)
        for tensor in everything(plan):
            assert torch.isfinite(tensor).all() and not tensor.requires_grad


@every_case
def test_the_seed_decides_everything_and_labels_nothing(bench: Bench, slug: str, parameters: dict) -> None:
    first, again, blind, other = (
        planned(one.vectors, slug, with_steps(slug, parameters, 3, batch=4, seed=seed), bench=one)
        for one, seed in ((bench, 1), (bench, 1), (unlabelled(bench), 1), (bench, 2))
    )
    assert first.curve == again.curve == blind.curve and first.curve != other.curve
    for same in (again, blind):
        assert all(torch.equal(a, b) for a, b in zip(everything(first), everything(same), strict=True))


@every_case
def test_the_test_images_are_taken_on_request(bench: Bench, slug: str, parameters: dict) -> None:
    val, test = (
        planned(bench.vectors, slug, with_steps(slug, parameters, 1, images=images), bench=bench).curve
        for images in ("val", "test")
    )
    assert val != test


@every_case
def test_training_changes_nothing_of_the_bench(bench: Bench, slug: str, parameters: dict) -> None:
    before = {name: value.clone() for name, value in bench.base_weights().items()}
    planned(bench.vectors, slug, with_steps(slug, parameters, 2, batch=4), bench=bench)
    for name, value in bench.base_weights().items():
        assert torch.equal(value, before[name]) and not value.requires_grad and value.grad is None
    assert not any(value.requires_grad for value in bench.encoder.visual.parameters())


@every_case
def test_cancelling_while_it_trains_raises_cancelled(bench: Bench, slug: str, parameters: dict) -> None:
    told: list[str] = []

    def stopped() -> bool:
        return any("step 3 of" in text for text in told)

    with pytest.raises(Cancelled):
        planned(
            bench.vectors,
            slug,
            with_steps(slug, parameters, 50, batch=2),
            bench=bench,
            progress=lambda share, text: told.append(text),
            cancelled=stopped,
        )
    assert any("step 3 of 50" in text for text in told) and not any("step 5 of 50" in text for text in told)


@every_case
def test_without_images_it_is_refused(bench: Bench, slug: str, parameters: dict) -> None:
    with pytest.raises(InputError, match=f"^{slug} .*needs unlabeled images of the tasks, got a set without images$"):
        planned(bench.vectors, slug, parameters)


@every_case
def test_single_precision_trains_as_double_does(bench: Bench, slug: str, parameters: dict) -> None:
    single, double = (
        planned(bench.vectors, slug, with_steps(slug, parameters, 2), bench=bench, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    assert single.curve == pytest.approx(double.curve, rel=1e-3)
    for one, other in zip(single.layers, double.layers, strict=True):
        found, wanted = single.delta(one), double.delta(other)
        assert found.dtype == torch.float32 and wanted.dtype == torch.float64
        assert relative_error(found, wanted) < 1e-2


@every_case
def test_the_loss_falls_on_the_images_it_adapts_to(bench: Bench, slug: str, parameters: dict) -> None:
    faster = {"learning_rate": 0.5} if slug == "concrete" else {}  # more than the noise of its masks
    plan = planned(bench.vectors, slug, with_steps(slug, parameters, 12, batch=15, **faster), bench=bench)
    first = plan.curve[:12]
    assert sum(first[-3:]) < sum(first[:3])


@every_case
def test_one_task_is_enough(tmp_path: Path, slug: str, parameters: dict) -> None:
    bench = tiny_bench(tmp_path, tasks=1)
    plan = planned(bench.vectors, slug, with_steps(slug, parameters, 2), bench=bench)
    assert all(torch.isfinite(tensor).all() for tensor in everything(plan)) and len(plan.curve) >= 2
