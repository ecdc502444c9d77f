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

#: The authors' code: a task's directions count at least as much as its strongest fifth; both merged factors are doubled.
RAISED, ENLARGED = 0.2, 2.0


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
    differs="The default is the paper's Algorithm 1; form “published” is the authors' code.",
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
            "sum: of the tasks' products (the paper's Algorithm 1). factors: the product of the summed factors, of the adapters' "
            "own rank. published: the same as the authors' code has it, with weak directions raised and both factors doubled.",
            ("sum", "factors", "published"),
        ),
    ] = "sum",
) -> Delta:
    """Σ_t B̃_t diag(S̃_t) Ã_t; with form "factors" (Σ_t B̃_t diag(S̃_t)) (Σ_t Ã_t).

    Adapters of a smaller rank (0 where one does not adapt this weight) are pruned as they are, then filled up with zeros. Form
    "published" is "factors" with S_t clamped from below at its own 80th percentile over the rank directions before it becomes a
    share, and with both factors multiplied by 2 (so that α = 1 is the authors' model).
    """
    deltas = layer.factored_deltas()
    rank = max(delta.rank for delta in deltas)
    prune = _pruned_as_published if form == "published" else _pruned
    pruned = [LowRank(prune(d.left, density), prune(d.right, density)).padded(rank) for d in deltas]
    deltas = [delta.padded(rank) for delta in deltas]
    shares = rank_shares([d.right for d in deltas], [d.right for d in pruned], RAISED if form == "published" else 0.0)
    scaled = [LowRank(d.left * share, d.right) for d, share in zip(pruned, shares, strict=True)]
    if form != "sum":
        enlarged, none = ENLARGED if form == "published" else 1.0, torch.zeros(())
        return LowRank(enlarged * sum((d.left for d in scaled), none), enlarged * sum((d.right for d in scaled), none))
    return LowRank(torch.cat([d.left for d in scaled], dim=1), torch.cat([d.right for d in scaled]))


def rank_shares(A: Sequence[Tensor], pruned: Sequence[Tensor], raised: float = 0.0) -> Tensor:
    """S̃ (T, r): how much of each rank direction's mass its pruning took, as a share over the tasks; sums to 1 over tasks.

    Before that, every task's values below the smallest of its ``raised`` share of largest ones are raised to it.
    """
    before, after = (torch.stack([factor.abs().sum(dim=1) for factor in factors]) for factors in (A, pruned))
    # A direction that is zero or was pruned away altogether has nothing to be enlarged.
    S = torch.where(after > 0, before / after.clamp_min(1e-30), 1.0)
    if raised:
        kth = min(S.shape[1], int(S.shape[1] * (1 - raised)) + 1)
        S = S.maximum(S.kthvalue(kth, dim=1, keepdim=True).values)
    return S / S.sum(dim=0)


def _pruned(factor: Tensor, density: float) -> Tensor:
    if not factor.numel():
        return factor
    kept = max(1, round(density * factor.numel()))
    return factor * (factor.abs() >= factor.abs().flatten().topk(kept).values[-1])


def _pruned_as_published(factor: Tensor, density: float) -> Tensor:
    """The authors' threshold is the largest of those to be dropped, which stays: one entry more."""
    dropped = int(factor.numel() * (1 - density))
    return factor * (factor.abs() >= factor.abs().flatten().kthvalue(dropped).values) if dropped else factor
