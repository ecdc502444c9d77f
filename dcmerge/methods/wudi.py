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
from dcmerge.methods.usual_scales import falling_for_adapters
from dcmerge.spectral.linalg import answered
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta

#: Adam's step as a share of the root mean square of the matrix's deltas. CLIP's entries, whose root mean square is about 2.8e-4,
#: get the authors' 1e-5 by it; larger or smaller deltas get the same number of steps for the same way.
RELATIVE_STEP = 0.036
#: Of two, three, four and eight of the demo's adapters the best of 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2 and 3 on validation was 0.8,
#: 0.8, 0.6 and 0.4; 1.2/√T is 0.85, 0.7, 0.6 and 0.4. At 1 the merge of eight is 24 points below zero-shot.
_LENGTHS = 1.2
_ROUNDING = 1e-6


@merging_method(
    "wudi",
    title="WUDI",
    idea="Each task vector's own rows stand for that layer's inputs: find the matrix that answers them as the experts do.",
    formula=r"\tau=\arg\min_\tau\sum_t\frac{\|(\tau-\tau_t)\,\tau_t^\top\|_F^2}{\|\tau_t\|_F^2}",
    source="Cheng et al. 2025, arXiv 2503.08099; spectral solver: SWUDI, Wei et al. 2026, arXiv 2606.07289",
    homogeneous=False,
    may_enlarge=True,
    usual_scale_of=falling_for_adapters(_LENGTHS),
    differs="Adam's step follows the size of the deltas; the authors' 0.00001 is the same for CLIP's. All matrices are merged"
    " and everything else is averaged; the authors merge the attention's and the MLP's matrices and leave everything "
    "else at the base's. For adapters the usual α is 1.2/√T, the authors' is 1.",
)
def wudi(
    layer: Layer,
    *,
    solver: Annotated[
        str,
        Choice(
            "Solver",
            "adam: some steps from the sum, as the authors do; stopping early holds back. spectral: what stopping early amounts "
            "to, in closed form (SWUDI). exact: the minimum, in closed form; with adapters it can grow very long.",
            ("adam", "spectral", "exact"),
        ),
    ] = "adam",
    iterations: Annotated[int, ITERATIONS] = 300,
    learning_rate: Annotated[
        float | None,
        Number(
            "Learning rate",
            "About how far Adam moves an entry in one step. The authors' 0.00001 fits CLIP's small deltas alone.",
            0,
            1,
            1e-5,
            auto=f"{RELATIVE_STEP:g} times the root mean square of the matrix's deltas",
            soft_high=1e-3,
            soft_low=1e-6,
            log=True,
        ),
    ] = None,
    duration: Annotated[
        float,
        Number(
            "Duration",
            "Spectral solver: how long the descent lasts, in units of one over the mean eigenvalue. Long: the exact minimum.",
            0,
            1e6,
            1,
            soft_high=100,
            soft_low=0.1,
            log=True,
            when=("solver", ("spectral",)),
        ),
    ] = 5.0,
    leading: Annotated[
        float,
        Number("Leading directions", "Spectral solver: share of the eigenvectors, the largest ones, that count.", 0, 1, 0.05),
    ] = 0.65,
) -> Delta:
    """Minimises Σ_t tr((τ − D_t) A_t (τ − D_t)ᵀ), A_t = D_tᵀD_t / ‖D_t‖²; its gradient is 2 (τ ΣA_t − ΣD_tA_t).

    All matrices are merged so, and every other parameter becomes the mean of the deltas. The authors treat the attention's and
    the MLP's matrices alone and leave all else at the base's.

    The spectral solver is gradient descent in continuous time t from the sum: every eigenvector of ΣA_t goes the share
    1 − exp(−λt) of its way to the minimum, and those beyond the leading ones stay where they were.

    Of adapters both closed forms stay factors. Adam moves entry by entry, on dense matrices.
    """
    if solver != "adam" and layer.vectors.kind == "lora":
        return _of_factors(layer.factored_deltas(), solver, duration, leading).to(layer.dtype)
    D = layer.dense_deltas()
    if solver != "adam":
        return _solved([delta.double() for delta in D], solver, duration, leading).to(D.dtype)
    A, B = (one.to(D.dtype) for one in _quadratic(D.unbind()))
    step = RELATIVE_STEP * D.square().mean().sqrt().item() if learning_rate is None else learning_rate
    return descended(D.sum(dim=0), lambda tau: _gradient(tau, A, B), iterations, step)


def _gradient(tau: Tensor, A: Tensor, B: Tensor) -> Tensor | None:
    """2 (τA − B); None where only rounding is left, which Adam would enlarge to whole steps."""
    rest = tau @ A - B
    return 2 * rest if rest.norm() > _ROUNDING * B.norm() else None


def _solved(D: Sequence[Tensor], solver: str, duration: float, leading: float) -> Tensor:
    """Either closed form of float64 deltas (m, n)."""
    A, B = _quadratic(D)
    return (
        answered(B, A) if solver == "exact" else filtered(torch.stack(list(D)).sum(dim=0), A, B, duration, leading)
    )  # τ* = (ΣD_tA_t)(ΣA_t)⁺


def filtered(start: Tensor, A: Tensor, B: Tensor, duration: float, leading: float) -> Tensor:
    """``start`` (m, n) after gradient flow on tr(τAτᵀ)/2 − tr(τBᵀ): start + (B − start·A) Q diag(g) Qᵀ, g = (1 − exp(−λt)) / λ.

    A (n, n) = Q diag(λ) Qᵀ; t is ``duration`` over the mean eigenvalue. Of the n directions only the share ``leading`` with the
    largest λ moves.
    """
    eigenvalues, Q = torch.linalg.eigh(A)
    eigenvalues = eigenvalues.clamp_min(0)
    t = duration / eigenvalues.mean().clamp_min(1e-30)
    way = torch.where(eigenvalues * t > 1e-12, -torch.expm1(-eigenvalues * t) / eigenvalues.clamp_min(1e-300), t)
    way[: len(way) - round(leading * len(way))] = 0  # eigenvalues ascend
    return start + ((B - start @ A) @ Q * way) @ Q.T


def _of_factors(deltas: Sequence[LowRank], solver: str, duration: float, leading: float) -> LowRank:
    """A closed form on the span of all rows: with D_t = C_t Vᵀ, V (n, k) orthonormal, it is that of the C_t (m, k), times Vᵀ."""
    V, R = torch.linalg.qr(torch.cat([delta.right for delta in deltas]).double().T)
    own = R.split([delta.rank for delta in deltas], dim=1)
    C = [delta.left.double() @ rows.T for delta, rows in zip(deltas, own, strict=True)]
    return LowRank(_solved(C, solver, duration, leading), V.T)


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
