"""TSV-M: task singular vectors, decorrelated."""

from __future__ import annotations

from typing import Annotated

import torch

from dcmerge.checkpoints import LowRank
from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta

RANK = Number(
    "Rank per task",
    "Singular components kept of each delta. At most min(m, n) / T, so that all tasks fit side by side.",
    1,
    4096,
    1,
    integer=True,
    auto="floor(min(m, n) / T), or the adapter's rank",
    soft_high=128,
)


@merging_method(
    "tsv_m",
    title="TSV-M",
    idea="Keep each task's leading singular directions and make them mutually orthogonal, so that tasks interfere less.",
    formula=r"\tau = U_\perp\,\mathrm{diag}(s_1,\ldots,s_T)\,V_\perp^\top,\quad U_\perp=\mathrm{polar}[U_1\cdots U_T]",
    source="Gargiulo et al. 2025, arXiv 2412.00081",
    keeps_factors=True,
)
def tsv_m(layer: Layer, *, rank: Annotated[int | None, RANK] = None) -> Delta:
    """polar([U_1..U_T]) diag([s_1..s_T]) polar([V_1..V_T])ᵀ; the mean where not one component a task fits."""
    r = layer.rank(rank)
    if r == 0:
        return layer.mean()
    basis = layer.cover_basis(r)
    return layer.in_kind(LowRank(basis.U * torch.cat([svd.s for svd in layer.factors(r)]), basis.V.T))
