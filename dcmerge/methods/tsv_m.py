"""TSV-M: task singular vectors, decorrelated."""

from __future__ import annotations

import math
from typing import Annotated

import torch

from dcmerge.checkpoints import LowRank
from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.usual_scales import falling_for_adapters
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta

#: Of two, three, four and eight of the demo's adapters the best of 0.2, 0.4, 0.6, 0.8, 1, 1.5, 2 and 3 on validation was 0.8,
#: 0.8, 0.8 and 0.6; √(2/T) is 1, 0.8, 0.7 and 0.5. At 1 the merge of eight lies at zero-shot.
_LENGTHS = math.sqrt(2)
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
    differs="For adapters the usual α is √(2/T), at most 1; for fully fine-tuned experts it is the authors' 1.",
    usual_scale_of=falling_for_adapters(_LENGTHS),
)
def tsv_m(layer: Layer, *, rank: Annotated[int | None, RANK] = None) -> Delta:
    """polar([U_1..U_T]) diag([s_1..s_T]) polar([V_1..V_T])ᵀ; the mean where not one component a task fits."""
    r = layer.rank(rank)
    if r == 0:
        return layer.mean()
    basis = layer.cover_basis(r)
    return layer.in_kind(LowRank(basis.U * torch.cat(layer.kept_values(r)), basis.V.T))
