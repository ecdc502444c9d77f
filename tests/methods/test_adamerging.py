"""AdaMerging: coefficients that descend the entropy of the merged model's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dcmerge.evaluation import Bench
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.adamerging import agreeing
from dcmerge.methods.adaptation import entropy, stepped
from dcmerge.methods.coefficients import combined, learned_coefficients
from dcmerge.vectors.layers import layer_of
from tests.builders import relative_error, tiny_bench
from tests.methods.builders import entropy_gradients, merged_on

#: All 15 validation images in every step.
ALL = {"batch": 15, "images": "val", "seed": 0}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def stacks(bench: Bench) -> dict[str, Tensor]:
    return {name: layer_of(bench.vectors, name).dense_deltas() for name in bench.vectors.parameters}


def learned(bench: Bench, stacks: Mapping[str, Tensor], start: float | Tensor = 0.3, **how: Any) -> dict[str, Tensor]:
    """λ (T,) by parameter, a copy."""
    how = {"by_layer": True, "clamp": False, "iterations": 1, "learning_rate": 1e-2, **ALL, **how}
    found = learned_coefficients(Calibration(bench), stacks, start, **how)
    return {name: row.clone() for name, row in found.items()}


def sums(stacks: Mapping[str, Tensor], table: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: combined(D, table[name]) for name, D in stacks.items()}


def inner_products(bench: Bench, stacks: Mapping[str, Tensor], table: Mapping[str, Tensor], images: dict) -> dict[str, Tensor]:
    """⟨∂L/∂W^l, τ_t^l⟩ of every parameter and task."""
    G = entropy_gradients(bench, sums(stacks, table), images)
    return {name: (D * G[name]).flatten(1).sum(dim=1) for name, D in stacks.items()}


def test_the_sum_worked_by_hand() -> None:
    assert combined(torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([2.0, -1])).tolist() == [-1, 0]
    assert combined(torch.tensor([1.0, 2]), torch.tensor([2.0, 3])).item() == 8


def test_agreeing_entries_worked_by_hand() -> None:
    """Thresholds 1 and 2; the sums are 3, −4, 0, which counts as positive, and −3 of the second alone."""
    D = torch.tensor([[3.0, -2, 2, 0.5], [-1, -2, -2, -3]])
    assert agreeing(D, torch.tensor([1.0, 2.0])).tolist() == [[3, -2, 2, 0], [0, -2, 0, -3]]


@pytest.mark.parametrize("coefficients", ["layer", "task"])
def test_without_steps_it_is_task_arithmetic_at_the_start(bench: Bench, coefficients: str) -> None:
    found = merged_on(bench, "adamerging", {"iterations": 0, "start": 0.3, "coefficients": coefficients})
    for name, total in merged_on(bench, "task_arithmetic").items():
        torch.testing.assert_close(found[name], 0.3 * total)


def test_without_steps_the_plus_plus_is_the_sum_of_ties(bench: Bench) -> None:
    found = merged_on(bench, "adamerging", {"iterations": 0, "start": 0.3, "plus_plus": True})
    for name, total in merged_on(bench, "ties", {"density": 0.2, "aggregate": "sum"}).items():
        torch.testing.assert_close(found[name], 0.3 * total)
        assert total.any() or total.numel() < 100


def test_one_task_with_a_coefficient_of_one_is_the_expert(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path, tasks=1)
    for name, delta in merged_on(bench, "adamerging", {"iterations": 0, "start": 1.0}).items():
        assert torch.equal(delta, bench.vectors.delta(name, "task0"))


def test_an_automatic_start_is_the_best_scale_of_the_sum(bench: Bench) -> None:
    found = merged_on(bench, "adamerging", {"iterations": 0})["visual.proj"]
    ratio = found / merged_on(bench, "task_arithmetic")["visual.proj"]
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
    assert (10 * ratio[0, 0]).item() == pytest.approx(round((10 * ratio[0, 0]).item()), abs=1e-4)


def test_the_gradient_is_the_inner_product_with_the_task_vector(bench: Bench, stacks: dict) -> None:
    """Against autograd through the sum, and against finite differences along the gradient."""
    images = next(Calibration(bench).batches(15))
    table = {name: torch.tensor([0.3, 0.2], requires_grad=True) for name in stacks}

    def loss(rows: Mapping[str, Tensor]) -> Tensor:
        return entropy(Calibration(bench), stepped(bench.base_weights(), sums(stacks, rows)), images)

    loss(table).backward()
    wanted = inner_products(bench, stacks, table, images)
    for name, row in table.items():
        torch.testing.assert_close(row.grad, wanted[name], rtol=1e-3, atol=1e-4)
    length = torch.cat(list(wanted.values())).norm()
    ends = [
        loss({name: row.detach() + sign * 1e-3 * wanted[name] / length for name, row in table.items()}).item() for sign in (1, -1)
    ]
    assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(length.item(), rel=2e-2)


@pytest.mark.parametrize("by_layer", [True, False])
def test_the_steps_are_adams_along_that_gradient(bench: Bench, stacks: dict, by_layer: bool) -> None:
    table = {name: torch.full((2,), 0.3) for name in stacks}
    m, v = ({name: torch.zeros(2) for name in stacks} for _ in range(2))
    batches = Calibration(bench).batches(15)
    for step in (1, 2, 3):
        gradients = inner_products(bench, stacks, table, next(batches))
        for name, gradient in gradients.items():
            gradient = gradient if by_layer else sum(gradients.values())
            m[name], v[name] = 0.9 * m[name] + 0.1 * gradient, 0.999 * v[name] + 0.001 * gradient**2
            table[name] = table[name] - 0.01 * (m[name] / (1 - 0.9**step)) / ((v[name] / (1 - 0.999**step)).sqrt() + 1e-8)
    found = learned(bench, stacks, by_layer=by_layer, iterations=3)
    for name, row in found.items():
        torch.testing.assert_close(row, table[name], rtol=0, atol=2e-4)


def test_taskwise_coefficients_are_equal_over_layers_and_layerwise_ones_are_not(bench: Bench, stacks: dict) -> None:
    one = torch.stack(list(learned(bench, stacks, by_layer=False, iterations=5).values()))
    each = torch.stack(list(learned(bench, stacks, by_layer=True, iterations=5).values()))
    assert torch.equal(one, one[:1].expand_as(one)) and (one != 0.3).all()
    assert len(each.unique(dim=0)) > len(stacks) / 2


def test_a_start_for_every_parameter_and_task_is_kept_without_steps(bench: Bench, stacks: dict) -> None:
    table = torch.arange(2.0 * len(stacks)).reshape(-1, 2)
    found = learned(bench, stacks, table, iterations=0)
    assert torch.equal(torch.stack(list(found.values())), table)


def test_clamped_coefficients_stay_between_0_and_1(bench: Bench, stacks: dict) -> None:
    free, kept = (
        torch.stack(list(learned(bench, stacks, 0.5, iterations=4, learning_rate=0.4, clamp=clamp).values()))
        for clamp in (False, True)
    )
    assert free.min() < 0 and free.max() > 1
    assert kept.min() == 0 and kept.max() == 1


@pytest.mark.parametrize("by_layer", [True, False])
def test_the_entropy_falls_on_all_adaptation_images(bench: Bench, stacks: dict, by_layer: bool) -> None:
    images = next(Calibration(bench).batches(15))
    before, some, more = (
        entropy(
            Calibration(bench),
            stepped(bench.base_weights(), sums(stacks, learned(bench, stacks, by_layer=by_layer, iterations=steps))),
            images,
        ).item()
        for steps in (0, 5, 20)
    )
    assert before > some > more


def test_the_merge_is_the_sum_with_the_learned_coefficients(bench: Bench, stacks: dict) -> None:
    found = merged_on(bench, "adamerging", {"iterations": 3, "start": 0.3, "batch": 15, "learning_rate": 1e-2})
    table = learned(bench, stacks, iterations=3, clamp=True)
    for name, delta in sums(stacks, table).items():
        torch.testing.assert_close(found[name], delta)
    assert relative_error(found["visual.proj"], 0.3 * stacks["visual.proj"].sum(dim=0)) > 1e-3
