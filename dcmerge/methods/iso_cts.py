"""Iso-CTS: isotropic merging in the common and the task-specific subspaces."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank, total
from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.spectral.linalg import frobenius_norm, polar_factor, truncated_svd
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta


@merging_method(
    "iso_cts",
    title="Iso-CTS",
    idea="Iso-C with room for each task: the weakest common directions give way to directions that only one task uses.",
    formula=r"\tau=\bar\sigma\,\mathrm{polar}[U_1\cdots U_T\,U_c]\;\mathrm{polar}[V_1\cdots V_T\,V_c]^\top",
    source="Marczak et al. 2025, arXiv 2502.04959",
    keeps_factors=True,
    sees_factors=True,
)
def iso_cts(
    layer: Layer,
    *,
    common_fraction: Annotated[
        float, Number("Common fraction", "Share of the directions taken from the sum of all task vectors.", 0, 1, 0.05)
    ] = 0.8,
) -> Delta:
    """Top k_c directions of Σ D_t, then of each residual D_t − U_c U_cᵀ D_t the top (r − k_c)/T; all with one mean weight.

    r is min(m, n), or T times the adapters' rank. r − k_c is rounded to a multiple of T, as in the authors' code, but
    never above r. With ``common_fraction`` 1 it is Iso-C. Directions that a task or the sum does not have get no weight.
    """
    D, r = layer.deltas(), layer.joint_rank()
    tasks = len(D)
    each = min(round((r - int(r * common_fraction)) / tasks), r // tasks)
    common = truncated_svd(total(D), r - each * tasks).present()
    parts = [truncated_svd(_without(common.U, delta), each).present(frobenius_norm(delta)) for delta in D]
    U = polar_factor(torch.cat([*(p.U for p in parts), common.U], dim=1))
    V = polar_factor(torch.cat([*(p.V for p in parts), common.V], dim=1))
    return layer.in_kind(LowRank(torch.cat([*(p.s for p in parts), common.s]).sum() / max(r, 1) * U, V.T))


def _without(U: Tensor, delta: Delta) -> Delta:
    """D − U Uᵀ D: what of a delta lies outside the span of the orthonormal columns U; of factors as factors."""
    if isinstance(delta, LowRank):
        return LowRank(_outside(U, delta.left), delta.right)
    return _outside(U, delta)


def _outside(U: Tensor, D: Tensor) -> Tensor:
    return D - U @ (U.T @ D)
