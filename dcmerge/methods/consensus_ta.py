"""Consensus Task Arithmetic: keep the entries that several tasks need (TALL masks)."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.usual_scales import growing_for_few
from dcmerge.vectors.layers import Layer


@merging_method(
    "consensus_ta",
    title="Consensus TA",
    idea="Ask for every entry of the summed task vector which tasks rely on it, and drop those that fewer than k tasks want.",
    formula=r"\tau=1\!\left[\textstyle\sum_t m_t\ge k\right]\circ\tau_\Sigma,"
    r"\quad m_t=1[\,|\tau_t|>\lambda\,|\tau_\Sigma-\tau_t|\,]",
    source="Wang et al. 2024, arXiv 2405.07813",
    everywhere=True,
    usual_scale=0.3,
    usual_scale_of=growing_for_few(0.3),
)
def consensus_ta(
    layer: Layer,
    *,
    strictness: Annotated[
        float,
        Number(
            "Strictness λ",
            "How much larger than the others' sum an entry must be to count as a task's own. The authors "
            "choose it for each task on validation, from 0.2 to 0.6.",
            0,
            10,
            0.1,
            soft_high=1,
        ),
    ] = 0.4,
    agreement: Annotated[
        int,
        Number("Agreement k", "Tasks that must rely on an entry; 0 is Task Arithmetic.", 0, 1000, 1, integer=True, soft_high=8),
    ] = 2,
) -> Tensor:
    """Στ where at least k tasks have |τ_t| > λ |Στ − τ_t|. One λ for all tasks: the authors' choice by task needs labels."""
    D = layer.dense_deltas()
    total = D.sum(dim=0)
    votes = (D.abs() > strictness * (total - D).abs()).sum(dim=0)
    return total * (votes >= agreement)
