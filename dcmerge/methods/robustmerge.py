"""RobustMerge (CoPA-Merging): prune LoRA factors and enlarge what the pruning weakened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.registry import merging_method
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta


@merging_method(
    "robustmerge",
    title="RobustMerge",
    idea="Prune small entries of both LoRA factors, and give each rank direction back the strength that its pruning cost, "
    "balanced over the tasks.",
    formula=r"\tau=\sum_t\tilde B_t\,\mathrm{diag}(\tilde S_t)\,\tilde A_t,"
    r"\quad S_t^i=\frac{\sum_j|A_t^{ij}|}{\sum_j|\tilde A_t^{ij}|},\ \tilde S_t^i=\frac{S_t^i}{\sum_u S_u^i}",
    source="Zeng et al. 2025, arXiv 2502.17159",
    needs=("weights", "lora"),
    usual_scale=2.0,
    keeps_factors=True,
    sees_factors=True,
)
def robustmerge(
    layer: Layer,
    *,
    density: Annotated[
        float, Number("Density", "Share of each factor's entries that survives, by magnitude.", 0.01, 1, 0.01)
    ] = 0.2,
    form: Annotated[
        str,
        Choice(
            "Form",
            "sum: of the tasks' products (the paper's Algorithm 1). factors: the product of the summed factors, of "
            "the adapters' own rank (the published code).",
            ("sum", "factors"),
        ),
    ] = "sum",
) -> Delta:
    """Σ_t B̃_t diag(S̃_t) Ã_t; with form "factors" (Σ_t B̃_t diag(S̃_t)) (Σ_t Ã_t).

    Adapters of a smaller rank (0 where one does not adapt this weight) are pruned as they are, then filled up with zeros. The
    published code further clamps S_t from below at its own 80th percentile and multiplies both factors by 2.
    """
    deltas = layer.factored_deltas()
    rank = max(delta.rank for delta in deltas)
    pruned = [LowRank(_pruned(d.left, density), _pruned(d.right, density)).padded(rank) for d in deltas]
    deltas = [delta.padded(rank) for delta in deltas]
    shares = rank_shares([d.right for d in deltas], [d.right for d in pruned])
    scaled = [LowRank(d.left * share, d.right) for d, share in zip(pruned, shares, strict=True)]
    if form == "factors":
        none = torch.zeros(())
        return LowRank(sum((d.left for d in scaled), none), sum((d.right for d in scaled), none))
    return LowRank(torch.cat([d.left for d in scaled], dim=1), torch.cat([d.right for d in scaled]))


def rank_shares(A: Sequence[Tensor], pruned: Sequence[Tensor]) -> Tensor:
    """S̃ (T, r): how much of each rank direction's mass its pruning took, as a share over the tasks; sums to 1 over tasks."""
    before, after = (torch.stack([factor.abs().sum(dim=1) for factor in factors]) for factors in (A, pruned))
    # A direction that is zero or was pruned away altogether has nothing to be enlarged.
    S = torch.where(after > 0, before / after.clamp_min(1e-30), 1.0)
    return S / S.sum(dim=0)


def _pruned(factor: Tensor, density: float) -> Tensor:
    if not factor.numel():
        return factor
    kept = max(1, round(density * factor.numel()))
    return factor * (factor.abs() >= factor.abs().flatten().topk(kept).values[-1])
