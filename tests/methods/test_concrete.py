"""Concrete subspace learning: the random mask that all task vectors share."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dcmerge.evaluation import Bench
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.adaptation import entropy, stepped
from dcmerge.methods.coefficients import combined
from dcmerge.methods.concrete import learned_mask, rescaled, sampled_mask
from dcmerge.vectors.layers import layer_of
from tests.builders import relative_error, tiny_bench
from tests.methods.builders import entropy_gradients, first_step, merged_on

#: One step on 5 of the 15 validation images, so that its two batches share none.
TRAINING = {
    "temperature": 0.5,
    "final": "continuous",
    "iterations": 1,
    "learning_rate": 0.3,
    "inner_rate": 0.05,
    "batch": 5,
    "images": "val",
    "seed": 4,
}
MATRIX = "visual.transformer.resblocks.1.mlp.c_fc.weight"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def stacks(bench: Bench) -> dict[str, Tensor]:
    return {name: layer_of(bench.vectors, name).dense_deltas() for name in bench.vectors.parameters}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def summed(stacks: dict[str, Tensor], table: Tensor) -> dict[str, Tensor]:
    """Σ λ_t τ_t, λ (number of parameters, T)."""
    return {name: combined(D, row) for (name, D), row in zip(stacks.items(), table, strict=True)}


def samples(stacks: dict[str, Tensor], logits: dict[str, Tensor], draw: torch.Generator) -> dict[str, Tensor]:
    return {name: sampled_mask(logits[name], 0.5, draw) for name in stacks}


def through_the_mask(G: Tensor, D: Tensor, m: Tensor, temperature: float = 0.5) -> Tensor:
    """∂L/∂x of W = base + (m / mean m) ∘ D, m = σ((… + x) / T), from G = ∂L/∂W."""
    a, mean = G * D, m.mean()
    return (a / mean - (a * m).sum() / (m.numel() * mean**2)) * m * (1 - m) / temperature


# The mask


def test_a_sample_worked_by_hand() -> None:
    u = torch.rand(5, generator=seeded(3))
    x = torch.tensor([-2.0, -1, 0, 1, 2])
    wanted = [1 / (1 + math.exp(-(math.log(p) - math.log(1 - p) + y) / 0.5)) for p, y in zip(u.tolist(), x.tolist(), strict=True)]
    assert sampled_mask(x, 0.5, seeded(3)).tolist() == pytest.approx(wanted, rel=1e-4)


def test_rescaled_masks_have_mean_1() -> None:
    assert rescaled(torch.tensor([0.0, 1, 1, 0])).tolist() == [0, 2, 2, 0]
    assert rescaled(sampled_mask(torch.randn(40, 50, generator=seeded(0)), 0.5, seeded(1))).mean().item() == pytest.approx(1)
    assert not rescaled(torch.zeros(3)).any()  # nothing kept is no division by zero


def test_at_logit_0_the_mask_is_one_half_on_average_and_1_once_rescaled() -> None:
    masks = [sampled_mask(torch.zeros(20, 20), 0.5, seeded(seed)) for seed in range(200)]
    for found, wanted in ((torch.stack(masks), 0.5), (torch.stack([rescaled(m) for m in masks]), 1.0)):
        assert found.mean().item() == pytest.approx(wanted, abs=0.01)
        assert (found.mean(dim=0) - wanted).abs().max() < 5 * wanted * 0.8 / math.sqrt(200)


@pytest.mark.parametrize("x", [-2.0, 0.0, 1.0])
def test_a_low_temperature_makes_coins_that_fall_with_the_sigmoid(x: float) -> None:
    mask = sampled_mask(torch.full((200, 100), x), 1e-3, seeded(0))
    share = 1 / (1 + math.exp(-x))
    assert ((mask < 1e-3) | (mask > 1 - 1e-3)).float().mean() > 0.99
    assert mask.mean().item() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / mask.numel()))


def test_draws_at_the_ends_of_their_range_stay_finite() -> None:
    mask = sampled_mask(torch.zeros(1 << 20), 0.5, seeded(0))
    assert torch.isfinite(mask).all() and mask.aminmax().min < 1e-8 and mask.aminmax().max > 1 - 1e-6


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_the_gradient_of_the_logits_is_that_of_finite_differences_with_the_same_draws(temperature: float) -> None:
    x = torch.randn(4, 3, generator=seeded(1), dtype=torch.float64).requires_grad_()
    D, G = (torch.randn(4, 3, generator=seeded(seed), dtype=torch.float64) for seed in (2, 3))

    def loss(logits: Tensor) -> Tensor:
        return (G * rescaled(sampled_mask(logits, temperature, seeded(0))) * D).sum()

    loss(x).backward()
    m = sampled_mask(x.detach(), temperature, seeded(0))
    torch.testing.assert_close(x.grad, through_the_mask(G, D, m, temperature))
    for place in range(12):
        nudge = torch.zeros(12, dtype=torch.float64).index_fill(0, torch.tensor(place), 1e-5).view(4, 3)
        slope = (loss(x.detach() + nudge) - loss(x.detach() - nudge)) / 2e-5
        assert slope.item() == pytest.approx(x.grad.flatten()[place].item(), rel=1e-5, abs=1e-8)


# Learning


def test_without_steps_the_merge_is_a_sampled_share_of_task_arithmetic(bench: Bench, stacks: dict) -> None:
    draw, found = seeded(7), merged_on(bench, "concrete", {"iterations": 0, "start": 0.3, "seed": 7})
    masks = samples(stacks, {name: torch.zeros(D.shape[1:]) for name, D in stacks.items()}, draw)
    for name, m in masks.items():
        torch.testing.assert_close(found[name], 0.3 * m / m.mean() * stacks[name].sum(dim=0))


@pytest.mark.parametrize("stage", ["task_arithmetic", "adamerging"])
def test_masks_of_ones_are_task_arithmetic(bench: Bench, stage: str) -> None:
    """So hot that every entry of a mask is one half, which is 1 once rescaled: the logits say nothing then."""
    how = {"iterations": 0, "start": 0.3, "temperature": 100.0, "stage": stage}
    found, total = merged_on(bench, "concrete", how), merged_on(bench, "task_arithmetic")
    assert all(relative_error(found[name], 0.3 * total[name]) < 0.03 for name in total)


def test_a_discrete_mask_keeps_or_drops_and_makes_up_for_it(bench: Bench, stacks: dict) -> None:
    found = merged_on(bench, "concrete", {"iterations": 0, "start": 0.3, "final": "discrete"})[MATRIX]
    mask = found / (0.3 * stacks[MATRIX].sum(dim=0))
    kept = (mask != 0).float().mean().item()
    assert kept == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(mask.numel()))
    torch.testing.assert_close(mask[mask != 0], torch.full_like(mask[mask != 0], 1 / kept))


def one_step_by_hand(bench: Bench, stacks: dict[str, Tensor], table: Tensor, images: dict) -> dict[str, Tensor]:
    """The rescaled final masks after one step of Adam on the logits at these coefficients."""
    draw = seeded(TRAINING["seed"])
    logits = {name: torch.zeros(D.shape[1:]) for name, D in stacks.items()}
    masks, totals = samples(stacks, logits, draw), summed(stacks, table)
    G = entropy_gradients(bench, {name: m / m.mean() * totals[name] for name, m in masks.items()}, images)
    moved = {name: first_step(through_the_mask(G[name], totals[name], m), 0.3) for name, m in masks.items()}
    return {name: m / m.mean() for name, m in samples(stacks, moved, draw).items()}


def assert_masks(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Equal but for entries without a gradient to speak of, where the sign of rounding decides over Adam's step."""
    for name, mask in wanted.items():
        assert ((found[name] - mask).abs() > 1e-2).float().mean() < 0.02, name
        assert found[name].mean().item() == pytest.approx(1, abs=1e-5)


def test_a_step_with_fixed_coefficients_is_adams_through_the_mask(bench: Bench, stacks: dict) -> None:
    images = list(zip(range(2), Calibration(bench).batches(5, seed=4), strict=False))[1][1]
    found = learned_mask(Calibration(bench), stacks, 0.3, by_coefficients=False, **TRAINING)
    assert_masks(found, one_step_by_hand(bench, stacks, torch.full((len(stacks), 2), 0.3), images))


def test_a_step_with_moving_coefficients_sees_them_as_constants(bench: Bench, stacks: dict) -> None:
    """First the coefficients move by the inner rate against the sign of their gradient, the mask held; then the mask does."""
    inner, outer = (images for _, images in zip(range(2), Calibration(bench).batches(5, seed=4), strict=False))
    masks = samples(stacks, {name: torch.zeros(D.shape[1:]) for name, D in stacks.items()}, seeded(4))
    own = {name: m / m.mean() * stacks[name] for name, m in masks.items()}
    G = entropy_gradients(bench, {name: 0.3 * D.sum(dim=0) for name, D in own.items()}, inner)
    table = torch.stack([0.3 - 0.05 * (D * G[name]).flatten(1).sum(dim=1).sign() for name, D in own.items()])
    wanted = one_step_by_hand(bench, stacks, table, outer)
    found = learned_mask(Calibration(bench), stacks, 0.3, by_coefficients=True, **TRAINING)
    assert_masks(found, wanted)
    fixed = one_step_by_hand(bench, stacks, torch.full((len(stacks), 2), 0.3), outer)
    assert ((wanted[MATRIX] - fixed[MATRIX]).abs() > 1e-2).float().mean() > 0.05


def test_learned_masks_make_the_merge_surer_than_those_at_the_start(bench: Bench, stacks: dict) -> None:
    images = next(Calibration(bench).batches(15))

    def mean_entropy(steps: int) -> float:
        found = [
            learned_mask(Calibration(bench), stacks, 0.3, by_coefficients=False, **TRAINING | {"iterations": steps, "seed": seed})
            for seed in range(3)
        ]
        deltas = [{name: 0.3 * m * stacks[name].sum(dim=0) for name, m in masks.items()} for masks in found]
        losses = [entropy(Calibration(bench), stepped(bench.base_weights(), own), images).item() for own in deltas]
        return sum(losses) / len(losses)

    assert mean_entropy(10) < 0.9 * mean_entropy(0)


def test_afterwards_every_task_has_a_coefficient_of_its_own_on_the_mask(bench: Bench, stacks: dict) -> None:
    how = {"start": 0.3, "stage": "adamerging", "iterations": 3, "batch": 5, "seed": 4, "learning_rate": 0.3, "inner_rate": 0.05}
    found = merged_on(bench, "concrete", how)
    masks = learned_mask(Calibration(bench), stacks, 0.3, by_coefficients=True, **TRAINING | {"iterations": 3})
    parts = (masks[MATRIX] * stacks[MATRIX]).flatten(1).double()
    solution = torch.linalg.lstsq(parts.T, found[MATRIX].flatten()[:, None].double()).solution
    torch.testing.assert_close((parts.T @ solution).flatten(), found[MATRIX].flatten().double(), atol=1e-5, rtol=1e-4)
    assert (solution - 0.3).abs().min() > 1e-2
