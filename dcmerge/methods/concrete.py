"""Concrete subspace learning: one learned random mask of entries that all task vectors share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.adaptation import BATCH, RATE, START, STEPS, adapt, entropy, notes_on_start, starting_scale, stepped
from dcmerge.methods.coefficients import combined, learned_coefficients
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.from_images import SEED, SPLIT
from dcmerge.methods.registry import merging_method
from dcmerge.vectors.layers import Layer

#: Uniform draws stay this far from 0 and 1, where the logit is infinite.
_EDGE = 1e-6


def sampled_mask(logits: Tensor, temperature: float, draw: torch.Generator) -> Tensor:
    """σ((log u − log(1 − u) + x) / T), u ~ U(0, 1): a binary Concrete sample, differentiable in the logits x."""
    u = torch.rand(logits.shape, generator=draw).clamp(_EDGE, 1 - _EDGE)
    return torch.sigmoid((u.logit() + logits) / temperature)


def rescaled(mask: Tensor) -> Tensor:
    """The mask over its mean, so that what it keeps makes up for what it drops."""
    return mask / mask.mean().clamp_min(_EDGE)


def learned_mask(
    calibration: Calibration,
    stacks: Mapping[str, Tensor],
    start: float,
    *,
    by_coefficients: bool,
    temperature: float,
    final: str,
    iterations: int,
    learning_rate: float,
    inner_rate: float,
    batch: int,
    images: str,
    seed: int,
) -> dict[str, Tensor]:
    """One rescaled mask for every parameter, after descending the entropy of base + Σ λ_t m ∘ τ_t.

    λ is ``start``; with ``by_coefficients`` it is what one step of descent makes of that for the mask of the moment.
    """
    base, draw = calibration.bench.base_weights(), torch.Generator().manual_seed(seed)
    logits = {name: torch.zeros(D.shape[1:]) for name, D in stacks.items()}
    tasks = len(calibration.bench.vectors.tasks)

    def loss(pair: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]) -> Tensor:
        masks = {name: rescaled(sampled_mask(x, temperature, draw)) for name, x in logits.items()}
        table = torch.full((len(stacks), tasks), start)
        if by_coefficients:
            fixed = {name: mask.detach() for name, mask in masks.items()}
            table = _one_step(table, lambda rows: entropy(calibration, _masked(base, stacks, fixed, rows), pair[0]), inner_rate)
        return entropy(calibration, _masked(base, stacks, masks, table), pair[1])

    adapt(
        calibration,
        list(logits.values()),
        loss,
        _pairs(calibration.batches(batch, images, seed)),
        iterations=iterations,
        learning_rate=learning_rate,
        what="learning the mask",
    )
    masks = {name: sampled_mask(x, temperature, draw) for name, x in logits.items()}
    if final == "discrete":
        masks = {name: torch.bernoulli(x.sigmoid(), generator=draw) for name, x in logits.items()}
    return {name: rescaled(mask) for name, mask in masks.items()}


def _pairs(batches: Iterator[Mapping[str, Tensor]]) -> Iterator[tuple]:
    """Two fresh batches a step: for the coefficients and for the mask."""
    while pair := tuple(islice(batches, 2)):
        yield pair


def _masked(
    base: Mapping[str, Tensor], stacks: Mapping[str, Tensor], masks: Mapping[str, Tensor], table: Tensor
) -> dict[str, Tensor]:
    """base + m ∘ Σ λ_t τ_t."""
    deltas = {name: masks[name] * combined(D, row) for (name, D), row in zip(stacks.items(), table, strict=True)}
    return stepped(base, deltas)


def _one_step(table: Tensor, loss, rate: float) -> Tensor:
    """The coefficients after one step of Adam, whose first step is the sign of the gradient times the rate."""
    rows = table.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(rows), rows)
    return table - rate * gradient.sign()


def _learned(
    layers: Sequence[Layer],
    *,
    calibration: Calibration,
    stage: str,
    start: float | None,
    temperature: float,
    final: str,
    iterations: int,
    learning_rate: float,
    inner_rate: float,
    batch: int,
    images: str,
    seed: int,
) -> dict[str, Tensor]:
    stacks = {layer.name: layer.dense_deltas().float() for layer in layers}
    begin = starting_scale(calibration, {name: D.sum(dim=0) for name, D in stacks.items()}, start)
    training = {"iterations": iterations, "batch": batch, "images": images, "seed": seed}
    masks = learned_mask(
        calibration,
        stacks,
        begin,
        by_coefficients=stage == "adamerging",
        temperature=temperature,
        final=final,
        learning_rate=learning_rate,
        inner_rate=inner_rate,
        **training,
    )
    if stage == "task_arithmetic":
        return {name: begin * masks[name] * D.sum(dim=0) for name, D in stacks.items()}
    masked = {name: masks[name] * D for name, D in stacks.items()}
    found = learned_coefficients(calibration, masked, begin, by_layer=True, clamp=False, learning_rate=inner_rate, **training)
    return {name: combined(D, found[name]) for name, D in masked.items()}


@merging_method(
    "concrete",
    title="Concrete subspace",
    idea="Learn which entries of the summed task vector to keep: one random mask for all tasks, whose probabilities make the "
    "merged model surer of its predictions on unlabeled images.",
    formula=r"\theta=\theta_0+\sum_t\lambda_t\,\frac{m}{\bar m}\circ\tau_t,"
    r"\quad m=\sigma\!\Big(\tfrac{\log u-\log(1-u)+x}{T}\Big),\ u\sim U(0,1)",
    source="Tang et al. 2023, arXiv 2312.06173",
    needs=("weights", "base", "images", "training"),
    everywhere=True,
    prepare=_learned,
    fixed_scale="the mask is learned for its own scale",
    differs="120 steps at a rate of 0.02 on validation images; the authors take 2000 at 0.001 on test images. The inner step's "
    "rate is 0.005, theirs 1.",
    notes=notes_on_start,
    quick={"iterations": 20},
)
def concrete(
    layer: Layer,
    *,
    prepared: dict[str, Tensor],
    stage: Annotated[
        str,
        Choice(
            "On",
            "task_arithmetic: one fixed coefficient. adamerging: a coefficient for every task and layer, learned "
            "inside every step and again at the end.",
            ("task_arithmetic", "adamerging"),
        ),
    ] = "task_arithmetic",
    start: Annotated[float | None, START] = 0.3,
    temperature: Annotated[
        float,
        Number(
            "Temperature", "Low: masks near 0 or 1. High: near one half.", 0.01, 100, 0.1, soft_high=2, soft_low=0.05, log=True
        ),
    ] = 0.5,
    final: Annotated[
        str,
        Choice("Final mask", "continuous: one more sample. discrete: every entry kept or dropped.", ("continuous", "discrete")),
    ] = "continuous",
    iterations: Annotated[int, STEPS] = 120,
    learning_rate: Annotated[float, RATE] = 2e-2,
    inner_rate: Annotated[float, RATE] = 5e-3,
    batch: Annotated[int, BATCH] = 16,
    images: Annotated[str, SPLIT] = "val",
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """Σ λ_t m ∘ D_t. The authors take 2000 steps at a rate of 0.001; their inner step has a rate of 1, which is odd.

    At twenty times the rate the demo's validation accuracy goes from 66.0 % to 68.1, 69.0 and 69.3 % after 40, 80 and 120 steps
    (150 images a task).
    """
    return prepared[layer.name].to(layer.dtype)
