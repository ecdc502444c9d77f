"""DOGE-AM: a correction for each task vector, and coefficients learned from there on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import InputError
from dcmerge.evaluation import Bench
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods import merged_deltas, planned
from dcmerge.methods.coefficients import combined, learned_coefficients
from dcmerge.methods.doge import _beside, correction, corrections, residuals, shared_directions
from dcmerge.vectors.layers import layer_of
from tests.builders import layer_set, random_matrices, relative_error, tiny_bench
from tests.methods.builders import merged_on

D = torch.stack(random_matrices(3, 10, 14)).double()
LAMBDAS = torch.tensor([0.3, 0.4, 0.2], dtype=torch.float64)
NOTHING = torch.zeros(10, 0, dtype=torch.float64)
SHARED = torch.linalg.qr(random_matrices(1, 10, 4, 9)[0].double()).Q
#: DOGE-AM with few steps, so that a test is quick; the first rate is large for them.
AM = {"stage": "adamerging", "eta": 0.07, "iterations": 5, "learning_rate": 1e-2, "batch": 15}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def loss(deltas: Tensor) -> Tensor:
    """Σ_j Σ_row ⟨τ_j, τ_j − Σ_t λ_t (τ_t + Δ_t)⟩², written out."""
    merged = sum(weight * (own + delta) for weight, own, delta in zip(LAMBDAS, D, deltas, strict=True))
    return sum((own * (own - merged)).sum(dim=1).square().sum() for own in D)


def matrices(bench: Bench) -> list[str]:
    return [name for name in bench.vectors.parameters if bench.vectors.parameters[name].kind == "matrix"]


def vectors_by_hand(bench: Bench, iterations: int = 5) -> tuple[dict[str, Tensor], Tensor]:
    """(τ_t + Δ_t) ∘ m_t of every matrix, and λ_t = η / ‖τ_t‖: m_t keeps the largest 30 % of a task's entries."""
    stacks = {name: torch.stack(bench.vectors.deltas(name)) for name in matrices(bench)}
    sizes = torch.cat([own.flatten(1).abs() for own in stacks.values()], dim=1)
    least = sizes.topk(int(0.3 * sizes.shape[1]) + 1, dim=1).values[:, -1]  # the authors' threshold, as in TIES
    found, table = {}, []
    for name, own in stacks.items():
        lambdas = 0.07 / own.flatten(1).norm(dim=1)
        shared = shared_directions(layer_of(bench.vectors, name), 2.0)
        mask = own.abs() >= least[:, None, None]
        found[name] = (own + corrections(own, lambdas, shared, iterations, 1e-2)) * mask
        table.append(lambdas)
    return found, torch.stack(table)


def test_without_adaptation_it_is_the_sum_of_its_corrected_trimmed_vectors(bench: Bench) -> None:
    parts, table = vectors_by_hand(bench)
    found = merged_on(bench, "doge", {**AM, "adaptation_steps": 0})
    for (name, own), lambdas in zip(parts.items(), table, strict=True):
        assert relative_error(found[name], lambdas[0] * own[0] + lambdas[1] * own[1]) < 1e-5
    assert not any(found[name].any() for name in found.keys() - parts.keys())


def test_with_neither_kind_of_steps_nor_trim_it_is_task_arithmetic_of_one_length(bench: Bench) -> None:
    how = {"stage": "adamerging", "eta": 0.07, "iterations": 0, "adaptation_steps": 0, "density": 1.0}
    found = merged_on(bench, "doge", how)
    for name in matrices(bench):
        own = bench.vectors.deltas(name)
        assert relative_error(found[name], 0.07 * sum(delta / delta.norm() for delta in own)) < 1e-5


def test_the_coefficients_are_learned_from_there_on_without_bounds(bench: Bench) -> None:
    parts, table = vectors_by_hand(bench)
    learned = learned_coefficients(
        Calibration(bench),
        parts,
        table,
        by_layer=True,
        clamp=False,
        iterations=3,
        learning_rate=0.1,
        batch=15,
        images="val",
        seed=0,
    )
    found = merged_on(bench, "doge", {**AM, "adaptation_steps": 3, "adaptation_rate": 0.1})
    for name, own in parts.items():
        assert relative_error(found[name], combined(own, learned[name])) < 1e-4
    assert min(row.min() for row in learned.values()) < 0


def test_without_images_it_is_refused_in_one_sentence_and_without_adaptation_it_is_not(bench: Bench) -> None:
    message = "^doge with stage adamerging needs unlabeled images of the tasks, got a set without images$"
    with pytest.raises(InputError, match=message):
        next(merged_deltas(bench.vectors, "doge", {"stage": "adamerging"}))
    assert not planned(bench.vectors, "doge", {"iterations": 1}).curve


def test_the_gradient_of_every_correction_is_that_of_the_loss() -> None:
    """∂L/∂Δ_t = −2 λ_t Σ_j r_j ∘ τ_j: against autograd and finite differences, and the first step of Adam is its sign."""
    deltas = 0.1 * torch.stack(random_matrices(3, 10, 14, 5)).double()
    mean = combined(deltas, LAMBDAS) / LAMBDAS.sum()
    direction = (residuals(D, LAMBDAS, mean)[:, :, None] * D).sum(dim=0)
    wanted = -2 * LAMBDAS[:, None, None] * direction
    leaf = deltas.clone().requires_grad_()
    loss(leaf).backward()
    torch.testing.assert_close(leaf.grad, wanted)
    for t, i, j in [(0, 0, 0), (1, 4, 7), (2, 9, 13)]:
        nudge = torch.zeros_like(D)
        nudge[t, i, j] = 1e-5
        slope = (loss(deltas + nudge) - loss(deltas - nudge)) / 2e-5
        assert slope.item() == pytest.approx(wanted[t, i, j].item(), rel=1e-6, abs=1e-8)


def test_the_first_step_goes_against_the_gradient_of_the_loss() -> None:
    leaf = torch.zeros_like(D).requires_grad_()
    loss(leaf).backward()
    torch.testing.assert_close(corrections(D, LAMBDAS, NOTHING, 1, 1e-3), -1e-3 * leaf.grad.sign(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("shared", [NOTHING, SHARED])
def test_more_steps_lower_the_loss(shared: Tensor) -> None:
    losses = [loss(corrections(D, LAMBDAS, shared, steps, 1e-3)).item() for steps in (0, 10, 100)]
    assert losses[0] > losses[1] > losses[2]


def test_gradients_are_orthogonal_to_the_shared_directions_and_projected_once() -> None:
    gradient = torch.stack(random_matrices(3, 10, 14, 6)).double()
    rest = _beside(gradient, SHARED)
    assert (SHARED.T @ rest).norm() < 1e-12 * gradient.norm()
    torch.testing.assert_close(_beside(rest, SHARED), rest)
    torch.testing.assert_close(gradient - rest, SHARED @ SHARED.T @ gradient)
    assert torch.equal(_beside(gradient, NOTHING), gradient)
    assert _beside(gradient, torch.linalg.qr(random_matrices(1, 10, 10, 9)[0].double()).Q) is None


def test_rows_that_are_shared_are_never_corrected() -> None:
    found = corrections(D, LAMBDAS, torch.eye(10, 4, dtype=torch.float64), 10, 1e-2)
    assert not found[:, :4].any() and found[:, 4:].any()


def test_corrections_of_tasks_with_one_coefficient_are_one() -> None:
    """All gradients are equal then, so that each task gets the correction that DOGE-TA finds for all with the same step."""
    equal = torch.full((3,), 0.3, dtype=torch.float64)
    each = corrections(D, equal, NOTHING, 20, 1e-3)
    torch.testing.assert_close(each, each[:1].expand_as(each))
    torch.testing.assert_close(each[0], correction(D, equal, NOTHING, 20, 1e-3), atol=1e-6, rtol=1e-4)


def test_a_task_without_a_coefficient_is_not_corrected() -> None:
    none = torch.tensor([0.3, 0.0, 0.2], dtype=torch.float64)
    found = corrections(D, none, NOTHING, 5, 1e-3)
    assert not found[1].any() and found[0].any() and found[2].any()
    assert not corrections(D, 0 * none, NOTHING, 5, 1e-3).any()


@pytest.mark.parametrize(("tasks", "count"), [(2, 5), (3, 3), (7, 1), (11, 0)])
def test_the_shared_subspace_has_as_many_directions_as_there_are_ranks_a_task(tmp_path: Path, tasks: int, count: int) -> None:
    vectors = layer_set(tmp_path, random_matrices(tasks, 10, 14))
    found = shared_directions(layer_of(vectors, "weight"), float(tasks))
    assert found.shape == (10, count)
    torch.testing.assert_close(found.T @ found, torch.eye(count), atol=1e-5, rtol=0)


def test_longer_task_vectors_change_nothing_where_nothing_is_corrected(tmp_path: Path) -> None:
    deltas = random_matrices(2, 10, 14)
    sets = [layer_set(tmp_path / str(c), [deltas[0], c * deltas[1]]) for c in (1, 4)]
    once, longer = (dict(merged_deltas(own, "doge", {"iterations": 0, "eta": 0.07}))["weight"] for own in sets)
    torch.testing.assert_close(once, longer)


@pytest.mark.parametrize("slug", ["doge", "wudi"])
def test_by_default_the_steps_fit_the_deltas_so_that_larger_ones_give_a_larger_merge(tmp_path: Path, slug: str) -> None:
    """The authors' absolute steps would move CLIP-sized deltas a long way and these hardly."""
    deltas = random_matrices(3, 10, 14)
    small, large = (layer_set(tmp_path / str(c), [c * delta for delta in deltas]) for c in (2**-10, 1))
    found, wanted = (dict(merged_deltas(own, slug))["weight"] for own in (small, large))
    assert relative_error(2**10 * found, wanted) < 1e-2
