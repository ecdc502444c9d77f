"""WUDI: the merged task vector that interferes least with what each task's own rows excite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.methods.adam import ITERATIONS, descended
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.registry import merging_method
from dcmerge.spectral.linalg import answered
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta


@merging_method(
    "wudi",
    title="WUDI",
    idea="Each task vector's own rows stand for that layer's inputs: find the matrix that answers them as the experts do.",
    formula=r"\tau=\arg\min_\tau\sum_t\frac{\|(\tau-\tau_t)\,\tau_t^\top\|_F^2}{\|\tau_t\|_F^2}",
    source="Cheng et al. 2025, arXiv 2503.08099",
    homogeneous=False,
    may_enlarge=True,
)
def wudi(
    layer: Layer,
    *,
    solver: Annotated[
        str,
        Choice(
            "Solver",
            "adam: some steps from the sum, as the authors do, which stops before the minimum. exact: the minimum, in closed "
            "form.",
            ("adam", "exact"),
        ),
    ] = "adam",
    iterations: Annotated[int, ITERATIONS] = 300,
    learning_rate: Annotated[
        float, Number("Learning rate", "About how far Adam moves an entry in one step.", 0, 1, 1e-5, soft_high=1e-3)
    ] = 1e-5,
) -> Delta:
    """Minimises Σ_t tr((τ − D_t) A_t (τ − D_t)ᵀ), A_t = D_tᵀD_t / ‖D_t‖²; its gradient is 2 (τ ΣA_t − ΣD_tA_t).

    Of adapters the closed form stays factors. Adam moves entry by entry, on dense matrices.
    """
    if solver == "exact" and layer.vectors.kind == "lora":
        return _exact_of_factors(layer.factored_deltas()).to(layer.dtype)
    D = layer.dense_deltas()
    A, B = _quadratic(D.unbind())
    if solver == "exact":
        return answered(B, A).to(D.dtype)  # τ* = (ΣD_tA_t)(ΣA_t)⁺
    A, B = A.to(D.dtype), B.to(D.dtype)
    return descended(D.sum(dim=0), lambda tau: 2 * (tau @ A - B), iterations, learning_rate)


def _exact_of_factors(deltas: Sequence[LowRank]) -> LowRank:
    """The closed form on the span of all rows: with D_t = C_t Vᵀ, V (n, k) orthonormal, it is (ΣC_tA_t)(ΣA_t)⁺ Vᵀ, A_t (k, k)."""
    V, R = torch.linalg.qr(torch.cat([delta.right for delta in deltas]).double().T)
    own = R.split([delta.rank for delta in deltas], dim=1)
    A, B = _quadratic([delta.left.double() @ rows.T for delta, rows in zip(deltas, own, strict=True)])
    return LowRank(answered(B, A), V.T)


def _quadratic(D: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """ΣA_t (n, n) and ΣD_tA_t (m, n) in float64; a task without change adds nothing."""
    m, n = D[0].shape
    A, B = torch.zeros(n, n, dtype=torch.float64), torch.zeros(m, n, dtype=torch.float64)
    for delta in (one.double() for one in D):
        size = delta.square().sum()
        if size > 0:
            own = delta.T @ delta / size
            A += own
            B += delta @ own
    return A, B
