"""OPCM: experts come one after another, and each adds only what is orthogonal to the model so far."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.vectors.layers import Layer


@dataclass(frozen=True)
class Accumulated:
    """Σ of the cleaned task vectors of every parameter, and the scale that gives the whole model its length."""

    sums: dict[str, Tensor]
    scale: float


def cleaned(delta: Tensor, so_far: Tensor, share: float) -> Tensor:
    """The part of a delta (m, n) that does not lie along the merged matrix's own singular directions.

    P = Uᵀ D V with complete bases of the merged matrix; P's diagonal and its leading r x r block become 0, r being the smallest
    number of singular values that hold more than ``share`` of their sum, less one (the published code). The paper's own
    repository means to clear the diagonal and clears that of a copy, so its runs kept it; this is the corrected form of its
    authors' later benchmark.
    """
    U, s, Vt = torch.linalg.svd(so_far.double(), full_matrices=True)
    P = U.T @ delta.double() @ Vt.T
    r = int((s.cumsum(0) <= share * s.sum()).sum())
    P[:r, :r] = 0
    P.diagonal().zero_()
    return (U @ P @ Vt).to(delta.dtype)


def arrival(tasks: Sequence[str], seed: int | None) -> list[str]:
    """The order in which experts come: that of the set, or a random one."""
    if seed is None:
        return list(tasks)
    return [tasks[int(t)] for t in torch.randperm(len(tasks), generator=torch.Generator().manual_seed(seed))]


def accumulated_by_step(layers: Sequence[Layer], order: Sequence[str], share: float) -> Iterator[Accumulated]:
    """The model after each expert; λ_t cancels: Q_t = λ_{t−1} T_{t−1} + τ̃_t is the plain sum of the cleaned task vectors."""
    sums = {layer.name: torch.zeros(layer.shape, dtype=layer.dtype) for layer in layers}
    norms = []
    for task in order:
        square, length = 0.0, 0.0
        for layer in layers:
            D, Q = layer.dense_delta(task), sums[layer.name]
            square += D.double().square().sum().item()
            sums[layer.name] = Q + (cleaned(D, Q, share) if layer.is_matrix and Q.any() else D)
            length += sums[layer.name].double().square().sum().item()
        norms.append(math.sqrt(square))
        yield Accumulated(dict(sums), sum(norms) / len(norms) / math.sqrt(length) if length else 0.0)


def _accumulate(layers: Sequence[Layer], *, share: float, seed: int | None) -> Accumulated:
    """All experts in turn."""
    *_, last = accumulated_by_step(layers, arrival(layers[0].tasks, seed), share)
    return last


@merging_method(
    "opcm",
    title="OPCM",
    idea="Continual merging: each expert adds only what is orthogonal to the directions that the model has already learned, and "
    "the length stays that of one task vector.",
    formula=r"\tau=\frac{\overline{\|\tau_t\|}}{\|Q\|}\,Q,\quad Q=\sum_t P_{\perp}^{(t-1)}(\tau_t)",
    source="Tang et al. 2025, arXiv 2501.09522",
    everywhere=True,
    prepare=_accumulate,
    order_matters=True,
    differs="The diagonal of the projection is cleared, as the paper says; the paper's own repository clears that of a copy, "
    "so its runs kept it.",
)
def opcm(
    layer: Layer,
    *,
    prepared: Accumulated,
    share: Annotated[
        float,
        Number("Protected share", "Share of the singular values' sum whose directions later experts may not change.", 0, 1, 0.05),
    ] = 0.5,
    seed: Annotated[
        int | None,
        Number(
            "Order",
            "Seed of a random order of the experts.",
            0,
            2**31 - 1,
            1,
            integer=True,
            auto="the order of the set",
            soft_high=10,
        ),
    ] = None,
) -> Tensor:
    """Q · mean‖τ_t‖ / ‖Q‖ over the whole model; parameters that are not matrices are added as they are."""
    return prepared.scale * prepared.sums[layer.name]
