"""Perturb-and-Merge against its closed form, on quadratic losses whose curvature is known, and on a tiny real bench."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import repeat

import pytest
import torch
from torch import Tensor

from dcmerge import Cancelled, InputError, merge
from dcmerge.checkpoints import dense
from dcmerge.evaluation import Bench, Split
from dcmerge.methods import methods
from dcmerge.methods.perturb_and_merge import Curvature, KeyValueRows, drawn_factors, fine_tuned, perturbations
from dcmerge.vectors.task_vectors import TaskVectors

QUICK = {"steps": 4, "batch": 8, "exemplars": 5, "rank": 2}
D = 30


def vectors(count: int, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(D, generator=draw, dtype=torch.float64) for _ in range(count)]


def curvature(optima: list[Tensor], fishers: list[Tensor]) -> Curvature:
    found = Curvature(torch.zeros(D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64))
    for optimum, fisher in zip(optima, fishers, strict=True):
        found.add(optimum, fisher)
    return found


def test_the_coefficient_is_the_sum_over_tasks() -> None:
    """The two running sums give −Σ (θ − θ_i*)ᵀ F_i Δ / Σ Δᵀ F_i Δ."""
    theta, delta, *optima = vectors(5)
    fishers = [value.square() for value in vectors(3, seed=1)]
    wanted = -sum(((theta - o) * F * delta).sum() for o, F in zip(optima, fishers, strict=True))
    wanted = wanted / sum((F * delta**2).sum() for F in fishers)
    assert curvature(optima, fishers).coefficient(theta, delta) == pytest.approx(float(wanted), rel=1e-12)


def test_the_first_task_is_kept_whole() -> None:
    theta, delta, fisher = vectors(3)
    assert curvature([theta + delta], [fisher**2]).coefficient(theta, delta) == pytest.approx(1)


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_equal_curvature_and_optima_at_the_start_give_the_running_average(tasks: int) -> None:
    theta, delta, fisher = vectors(3)
    found = curvature([*repeat(theta, tasks - 1), theta + delta], [fisher**2] * tasks)
    assert found.coefficient(theta, delta) == pytest.approx(1 / tasks)


def test_the_derivative_at_the_coefficient_is_zero_and_it_is_the_lowest_point() -> None:
    theta, delta, *optima = vectors(6)
    fishers = [value.square() for value in vectors(4, seed=1)]
    found = curvature(optima, fishers)
    a = found.coefficient(theta, delta)
    assert float(found.gradient(theta + a * delta) @ delta) == pytest.approx(0, abs=1e-9)

    def loss(alpha: float) -> float:
        return sum(float((F * (theta + alpha * delta - o) ** 2).sum()) for o, F in zip(optima, fishers, strict=True)) / 2

    assert loss(a) < min(loss(a - 0.01), loss(a + 0.01))


@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e6])
def test_a_common_factor_of_the_curvatures_changes_nothing(factor: float) -> None:
    theta, delta, *optima = vectors(5)
    fishers = [value.square() for value in vectors(3, seed=1)]
    scaled = curvature(optima, [factor * F for F in fishers])
    assert scaled.coefficient(theta, delta) == pytest.approx(curvature(optima, fishers).coefficient(theta, delta))


def test_without_any_curvature_it_is_the_running_average() -> None:
    theta, delta, zero = *vectors(2), torch.zeros(D, dtype=torch.float64)
    assert curvature([theta, theta + delta], [zero, zero]).coefficient(theta, delta) == 0.5


def quadratic(seed: int = 3) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """½ (θ − c)ᵀ H (θ − c) with a dense positive H, and H."""
    draw = torch.Generator().manual_seed(seed)
    R, c = (torch.randn(*size, generator=draw, dtype=torch.float64) for size in ((D, D), (D,)))
    H = R @ R.T
    return lambda theta: (theta - c) @ H @ (theta - c) / 2, H


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0])
def test_the_finite_difference_is_the_curvature_along_the_update(epsilon: float) -> None:
    loss, H = quadratic()
    start, delta = vectors(2)
    (_, plain), (_, more), (_, less) = perturbations(epsilon, 0.3)
    found = (loss(start + more * delta) + loss(start + less * delta) - 2 * loss(start + plain * delta)) / epsilon**2
    assert float(found) == pytest.approx(float(delta @ H @ delta), rel=1e-9)


@pytest.mark.parametrize(("epsilon", "probability"), [(0.5, 1 / 3), (0.2, 0.1), (1.0, 0.5)])
def test_the_expected_loss_is_the_regularised_one(epsilon: float, probability: float) -> None:
    """p± = μ / ε²; the paper's ε = ½ and p± = ⅓ make μ = 1/12."""
    loss, H = quadratic()
    start, delta = vectors(2)
    points = perturbations(epsilon, probability)
    assert sum(share for share, _ in points) == pytest.approx(1)
    expected = sum(share * loss(start + factor * delta) for share, factor in points)
    mu = probability * epsilon**2
    assert float(expected) == pytest.approx(float(loss(start + delta) + mu * delta @ H @ delta), rel=1e-9)


def test_factors_come_with_their_probabilities() -> None:
    factors = drawn_factors(0.5, 0.25, seed=0)
    found = torch.tensor([next(factors) for _ in range(2000)])
    shares = [(found == value).double().mean().item() for value in (1.0, 1.5, 0.5)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.04) and set(found.tolist()) == {1.0, 1.5, 0.5}


def train(factors: Iterator[float], steps: int = 5, learning_rate: float = 1e-2) -> Tensor:
    target = torch.randn(2 * 3 * 3, generator=torch.Generator().manual_seed(0))
    return fine_tuned(
        torch.zeros(18),
        [3],
        lambda theta: (theta - target).square().sum(),
        factors,
        steps=steps,
        learning_rate=learning_rate,
        rank=2,
        seed=0,
    )


def test_no_perturbation_is_plain_training() -> None:
    plain = train(repeat(1.0))
    assert plain.any() and torch.equal(train(drawn_factors(0.0, 1 / 3, seed=0)), plain)
    assert torch.equal(train(drawn_factors(0.5, 0.0, seed=0)), plain)
    assert not torch.equal(train(drawn_factors(0.5, 1 / 3, seed=0)), plain)


def test_lora_starts_at_nothing_learns_and_keeps_its_rank() -> None:
    assert not train(repeat(1.0), steps=0).any()
    found = train(repeat(1.0), steps=300, learning_rate=3e-2).view(2, 3, 3)
    assert torch.linalg.matrix_rank(found, rtol=1e-5).tolist() == [2, 2]


def test_rows_of_keys_and_values_and_no_others() -> None:
    base = {"a.in_proj_weight": torch.ones(6, 2), "b.in_proj_weight": torch.ones(9, 3), "other": torch.ones(4)}
    rows = KeyValueRows(base, ("a.in_proj_weight", "b.in_proj_weight"))
    theta = torch.arange(rows.size, dtype=torch.float32) + 1
    deltas = rows.deltas(theta)
    for name, d in (("a.in_proj_weight", 2), ("b.in_proj_weight", 3)):
        assert not deltas[name][:d].any() and deltas[name][d:].all()
        assert torch.equal(rows.weights(theta)[name], base[name] + deltas[name])
    assert torch.equal(torch.cat([deltas[name][base[name].shape[1] :].flatten() for name in rows.names]), theta)
    assert torch.equal(rows.weights(theta)["other"], base["other"])


def test_on_a_bench(blocks_bench: Bench) -> None:
    told: list[float] = []
    merged = merge(
        blocks_bench.vectors, "perturb_and_merge", bench=blocks_bench, **QUICK, progress=lambda share, text: told.append(share)
    )
    assert len(merged.curve) == 2 * QUICK["steps"] and told == sorted(told) and told[-1] <= 1
    for name, delta in merged.deltas.items():
        trained = name.endswith("in_proj_weight")
        assert dense(delta).any() == trained, name
        if trained:
            d = delta.shape[1]
            assert not delta[:d].any() and torch.isfinite(delta).all()
    again = merge(blocks_bench.vectors, "perturb_and_merge", bench=blocks_bench, **QUICK)
    assert all(torch.equal(again.deltas[name], delta) for name, delta in merged.deltas.items())


def test_one_task_is_its_fine_tuning_and_lowers_its_loss(blocks_bench: Bench) -> None:
    """t = 1: θ̂ = θ*, whatever the Fisher information."""
    vectors = blocks_bench.vectors.select(["task0"])
    bench = Bench(blocks_bench.encoder, {"task0": blocks_bench.tasks["task0"]}, vectors)
    found = [merge(vectors, "perturb_and_merge", bench=bench, **{**QUICK, "exemplars": count}) for count in (1, 9)]
    for name, delta in found[0].deltas.items():
        torch.testing.assert_close(delta, found[1].deltas[name], rtol=1e-5, atol=1e-8)
    longer = merge(vectors, "perturb_and_merge", bench=bench, steps=40, batch=40, exemplars=1, epsilon=0.0)
    assert longer.curve[-1] < 0.7 * longer.curve[0]


def fisher_by_hand(bench: Bench, task: str, theta: dict[str, Tensor], part: Split) -> dict[str, Tensor]:
    """(∂ log p(y|x) / ∂W)² of whole projections, image by image, without any of the method's own code."""
    weights = bench.base_weights()
    own = {name: (weights[name] + delta).requires_grad_() for name, delta in theta.items()}
    total = {name: torch.zeros_like(value) for name, value in own.items()}
    for image, label in zip(part.images, part.labels, strict=True):
        z = torch.nn.functional.normalize(bench.encoder.forward({**weights, **own}, image[None]), dim=-1)
        logs = (bench.logit_scale.value * z @ bench.tasks[task].head.T).log_softmax(dim=-1)
        gradients = torch.autograd.grad(logs[0, label], list(own.values()))
        for name, gradient in zip(own, gradients, strict=True):
            total[name] += gradient.square() / len(part)
    return total


@pytest.mark.parametrize("normalise", [True, False])
def test_two_tasks_are_merged_by_the_closed_form(blocks_bench: Bench, monkeypatch: pytest.MonkeyPatch, normalise: bool) -> None:
    """Both optima as the method trained them, their Fisher information and α_2 by hand."""
    module = sys.modules["dcmerge.methods.perturb_and_merge"]
    updates: list[Tensor] = []
    monkeypatch.setattr(module, "fine_tuned", lambda *rest, **more: updates.append(fine_tuned(*rest, **more)) or updates[-1])
    everything = {**QUICK, "exemplars": 40, "learning_rate": 1e-2, "normalise": normalise}
    found = merge(blocks_bench.vectors, "perturb_and_merge", bench=blocks_bench, **everything)
    merged = found.deltas
    rows = KeyValueRows(blocks_bench.base_weights(), tuple(name for name in merged if name.endswith("in_proj_weight")))
    first, second = updates
    optima = {"task0": rows.deltas(first), "task1": rows.deltas(first + second)}
    delta, above, below = rows.deltas(second), 0.0, 0.0
    for task, optimum in optima.items():
        F = fisher_by_hand(blocks_bench, task, optimum, blocks_bench.split(task, "val", None))
        trace = sum(own.sum() for own in F.values()) if normalise else 1.0
        F = {name: own / trace for name, own in F.items()}
        for name in rows.names:
            above -= float(((optima["task0"][name] - optimum[name]) * F[name] * delta[name]).sum())
            below += float((delta[name] * F[name] * delta[name]).sum())
    assert 0 < above / below < 1
    assert "task0 1.00 (" in found.notes(1.0)[0] and f"task1 {above / below:.2f} (" in found.notes(1.0)[0]
    for name in rows.names:
        wanted = optima["task0"][name] + above / below * delta[name]
        torch.testing.assert_close(merged[name], wanted, rtol=1e-3, atol=1e-6)


def test_the_order_is_given_or_drawn(blocks_bench: Bench) -> None:
    def first_told(**parameters: object) -> str:
        told: list[str] = []
        merge(
            blocks_bench.vectors,
            "perturb_and_merge",
            bench=blocks_bench,
            **QUICK,
            **parameters,
            progress=lambda share, text: told.append(text),
        )
        return told[0]

    assert first_told() == first_told(seed=5) == "training on task0"
    assert {first_told(order="random", seed=seed) for seed in range(4)} == {"training on task0", "training on task1"}


def test_only_validation_images_are_looked_at(blocks_bench: Bench) -> None:
    tasks = {
        name: type(task)(task.name, task.title, task.classes, task.head, {"val": task.splits["val"]})
        for name, task in blocks_bench.tasks.items()
    }
    merge(blocks_bench.vectors, "perturb_and_merge", bench=Bench(blocks_bench.encoder, tasks, blocks_bench.vectors), **QUICK)


def test_it_can_be_cancelled(blocks_bench: Bench) -> None:
    count = iter(range(1000))
    with pytest.raises(Cancelled):
        merge(blocks_bench.vectors, "perturb_and_merge", bench=blocks_bench, cancelled=lambda: next(count) > 5, **QUICK)


def test_sets_that_it_cannot_train_on_are_refused(blocks_bench: Bench, convolutions: TaskVectors) -> None:
    with pytest.raises(InputError, match="perturb_and_merge needs unlabeled images of the tasks, got a set without images"):
        merge(blocks_bench.vectors, "perturb_and_merge")
    with pytest.raises(InputError, match="weights with open_clip's names, got other names"):
        bench = Bench(blocks_bench.encoder, blocks_bench.tasks, convolutions)
        bench.memo.get("base weights", blocks_bench.base_weights)
        merge(convolutions, "perturb_and_merge", bench=bench)
    assert methods()["perturb_and_merge"].needs == ("weights", "base", "images", "labels", "training")
