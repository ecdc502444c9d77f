"""DOGE: one shared correction of all task vectors, found by gradient descent outside the tasks' common subspace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.alignment import kept_entries, per_task
from dcmerge.layers import Layer
from dcmerge.methods.adam import ITERATIONS, descended
from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.ties import trim_thresholds

_ROUNDING = 1e-5


def _thresholds(layers: Sequence[Layer], *, density: float, **_: object) -> Tensor:
    """Each task's smallest kept magnitude over all matrices, (T,)."""
    matrices = [layer for layer in layers if layer.is_matrix]
    if not matrices:
        return torch.zeros(len(layers[0].tasks))
    return trim_thresholds(matrices, density)


@merging_method(
    "doge",
    title="DOGE-TA",
    idea="Give every task vector one length, and add to all of them a shared correction that makes their sum answer each task's "
    "own rows as that task's vector does, without touching the directions that the tasks share.",
    formula=r"\tau=\sum_t\lambda_t(\tau_t+\Delta)\circ m_t,\quad\lambda_t=\frac{\eta}{\|\tau_t\|},"
    r"\ \Delta=\arg\min\sum_j\big\|\langle\tau_j,\tau_j-\textstyle\sum_t\lambda_t(\tau_t+\Delta)\rangle_{\mathrm{row}}\big\|^2",
    source="Wei et al. 2025, arXiv 2501.01230",
    everywhere=True,
    prepare=_thresholds,
)
def doge(
    layer: Layer,
    *,
    prepared: Tensor,
    eta: Annotated[float, Number("η", "Length of each scaled task vector in a matrix.", 0, 100, 0.01, soft_high=1)] = 0.07,
    density: Annotated[float, Number("Density", "Share of each task vector's entries that is kept.", 0, 1, 0.05)] = 0.3,
    divisor: Annotated[
        float, Number("Subspace divisor", "The shared subspace has min(m, n) / divisor directions.", 1, 1000, 1, soft_high=16)
    ] = 6.0,
    iterations: Annotated[int, ITERATIONS] = 400,
    learning_rate: Annotated[
        float, Number("Learning rate", "Adam moves an entry by about so much a step.", 0, 1, 1e-4, soft_high=1e-2)
    ] = 1e-4,
) -> Tensor:
    """Σ_t λ_t (D_t + Δ) ∘ m_t of a matrix; every other parameter stays the base's, as in the authors' code.

    Gradients are projected off the shared subspace before Adam, which then rescales entries: PΔ = 0 holds only about.
    """
    D = layer.dense_deltas()
    if not layer.is_matrix:
        return torch.zeros_like(D[0])
    norms = D.flatten(1).norm(dim=1)
    lambdas = torch.where(norms > 0, eta / norms.clamp_min(1e-30), 0.0)
    delta = correction(D, lambdas, shared_directions(layer, divisor), iterations, learning_rate)
    return (per_task(lambdas, D) * (D + delta) * kept_entries(D, prepared)).sum(dim=0)


def shared_directions(layer: Layer, divisor: float) -> Tensor:
    """Orthonormal columns (m, k), k = ⌊min(m, n) / divisor⌋: leading left singular vectors of all tasks' own leading ones."""
    k, r = int(min(layer.shape) / divisor), layer.default_rank()
    if not k or not r:
        return torch.zeros(layer.shape[0], 0, dtype=layer.dtype)
    joined = torch.cat([svd.present().U for svd in layer.factors(r)], dim=1)
    U, s, _ = torch.linalg.svd(joined, full_matrices=False)
    return U[:, : min(k, int((s > 1e-6).sum()))]


def residuals(D: Tensor, lambdas: Tensor, delta: Tensor) -> Tensor:
    """⟨τ_j, τ_j − Σ_t λ_t (τ_t + Δ)⟩ of every row, (T, m)."""
    merged = (per_task(lambdas, D) * D).sum(dim=0) + lambdas.sum() * delta
    return (D * (D - merged)).sum(dim=2)


def correction(D: Tensor, lambdas: Tensor, shared: Tensor, iterations: int, learning_rate: float) -> Tensor:
    """Δ (m, n) after Adam on the sum of squared residuals, its gradients orthogonal to the shared directions."""

    def outside(delta: Tensor) -> Tensor | None:
        gradient = -2 * lambdas.sum() * (residuals(D, lambdas, delta)[:, :, None] * D).sum(dim=0)
        rest = gradient - shared @ (shared.T @ gradient)
        # Where the shared directions fill the space, only rounding is left, which Adam would enlarge.
        return rest if rest.norm() > _ROUNDING * gradient.norm() else None

    return descended(torch.zeros_like(D[0]), outside, iterations, learning_rate)
