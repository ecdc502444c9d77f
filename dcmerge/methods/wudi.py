"""WUDI: the merged task vector that interferes least with what each task's own rows excite."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dcmerge.layers import Layer
from dcmerge.linalg import answered
from dcmerge.methods.adam import ITERATIONS, descended
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.registry import merging_method


@merging_method(
    "wudi",
    title="WUDI",
    idea="Each task vector's own rows stand for that layer's inputs: find the matrix that answers them as the experts do.",
    formula=r"\tau=\arg\min_\tau\sum_t\frac{\|(\tau-\tau_t)\,\tau_t^\top\|_F^2}{\|\tau_t\|_F^2}",
    source="Cheng et al. 2025, arXiv 2503.08099",
)
def wudi(
    layer: Layer,
    *,
    solver: Annotated[
        str,
        Choice("Solver", "adam: some steps from the sum, as the authors do; stopping early holds back. exact: the minimum, in "
               "closed form.", ("adam", "exact")),
    ] = "adam",
    iterations: Annotated[int, ITERATIONS] = 300,
    learning_rate: Annotated[
        float, Number("Learning rate", "Adam moves an entry by about so much a step.", 0, 1, 1e-5, soft_high=1e-3)
    ] = 1e-5,
) -> Tensor:
    """Minimises Σ_t tr((τ − D_t) A_t (τ − D_t)ᵀ), A_t = D_tᵀD_t / ‖D_t‖²; its gradient is 2 (τ ΣA_t − ΣD_tA_t)."""
    D = layer.dense_deltas()
    A, B = _quadratic(D)
    if solver == "exact":
        return answered(B, A).to(D.dtype)  # τ* = (ΣD_tA_t)(ΣA_t)⁺
    A, B = A.to(D.dtype), B.to(D.dtype)
    return descended(D.sum(dim=0), lambda tau: 2 * (tau @ A - B), iterations, learning_rate)


def _quadratic(D: Tensor) -> tuple[Tensor, Tensor]:
    """ΣA_t (n, n) and ΣD_tA_t (m, n) in float64; a task without change adds nothing."""
    n = D.shape[2]
    A, B = torch.zeros(n, n, dtype=torch.float64), torch.zeros(D.shape[1:], dtype=torch.float64)
    for delta in D.double():
        size = delta.square().sum()
        if size > 0:
            own = delta.T @ delta / size
            A += own
            B += delta @ own
    return A, B
