"""Coefficients of task vectors, learned from unlabeled images: AdaMerging's core, which other methods end with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.adaptation import adapt, entropy, stepped

Vectors = Mapping[str, Tensor]  # (T, *shape) by parameter


def learned_coefficients(
    calibration: Calibration,
    vectors: Vectors,
    start: float | Tensor,
    *,
    by_layer: bool,
    clamp: bool,
    iterations: int,
    learning_rate: float,
    batch: int,
    images: str,
    seed: int,
) -> dict[str, Tensor]:
    """λ (T,) for every parameter (one for all, unless ``by_layer``) after descending the entropy of the merged predictions.

    ``start`` is one number or (number of parameters, T). ∂L/∂λ_t^l = ⟨∂L/∂W^l, τ_t^l⟩. With ``clamp`` every λ stays in [0, 1].
    """
    names, tasks = list(vectors), len(calibration.bench.vectors.tasks)
    table = torch.as_tensor(start).expand(len(names) if by_layer else 1, tasks).clone()
    base = calibration.bench.base_weights()

    def clamped() -> None:
        table.clamp_(0, 1)

    def loss(batches: Mapping[str, Tensor]) -> Tensor:
        rows = table.expand(len(names), tasks)
        deltas = {name: combined(own, row) for (name, own), row in zip(vectors.items(), rows, strict=True)}
        return entropy(calibration, stepped(base, deltas), batches)

    adapt(
        calibration,
        [table],
        loss,
        calibration.batches(batch, images, seed),
        iterations=iterations,
        learning_rate=learning_rate,
        what="learning coefficients",
        after_step=clamped if clamp else None,
    )
    return dict(zip(names, table.expand(len(names), tasks), strict=True))


def combined(D: Tensor, coefficients: Tensor) -> Tensor:
    """Σ_t λ_t D_t of (T, *shape) and (T,)."""
    return torch.tensordot(coefficients, D, dims=1)
