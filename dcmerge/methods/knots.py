"""KnOTS: TIES on LoRA experts in one common basis of left singular vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.ties import kept_threshold, trimmed
from dcmerge.spectral.alignment import elected
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta

_SMALLEST = 1e-5  # of the joint singular values, as the authors do


@dataclass(frozen=True)
class Aligned:
    """The joint basis of every layer, the tasks' matrices in it, and each task's threshold over all layers."""

    bases: dict[str, Tensor]
    matrices: dict[str, Tensor]
    thresholds: Tensor


def joint_basis(deltas: Sequence[LowRank]) -> tuple[Tensor, Tensor]:
    """U (m, k) and diag(s) V_tᵀ (T, k, n) of the SVD of [D_1 .. D_T] = U diag(s) [V_1 .. V_T]ᵀ, from the factors alone."""
    Q, R = torch.linalg.qr(torch.cat([d.left for d in deltas], dim=1).double())
    blocks = R.split([d.rank for d in deltas], dim=1)
    cores = [block @ d.right.double() for block, d in zip(blocks, deltas, strict=True)]
    eigenvalues, W = torch.linalg.eigh(sum(core @ core.T for core in cores))
    W = W.flip(1)[:, eigenvalues.flip(0).clamp_min(0).sqrt() > _SMALLEST]
    return Q @ W, torch.stack([W.T @ core for core in cores])


def _align(layers: Sequence[Layer], *, density: float) -> Aligned:
    bases, matrices = {}, {}
    for layer in (one for one in layers if one.is_matrix):
        U, tasks = joint_basis(layer.factored_deltas())
        bases[layer.name], matrices[layer.name] = U.to(layer.dtype), tasks.to(layer.dtype)
    count = len(layers[0].tasks)
    flat = [torch.cat([M[t].abs().flatten() for M in matrices.values()]) for t in range(count)]
    return Aligned(bases, matrices, torch.stack([kept_threshold(magnitudes, density) for magnitudes in flat]))


@merging_method(
    "knots",
    title="KnOTS-TIES",
    idea="LoRA experts hardly share entries, but they share a basis: write all of them in the left singular vectors of their "
    "union and merge there with TIES.",
    formula=r"[\tau_1\cdots\tau_T]=U\Sigma[V_1\cdots V_T]^\top,"
    r"\quad\tau=U\,\mathrm{TIES}(\Sigma V_1^\top,\ldots,\Sigma V_T^\top)",
    source="Stoica et al. 2024, arXiv 2410.19735",
    needs=("weights", "lora"),
    prepare=_align,
    keeps_factors=True,
    sees_factors=True,
)
def knots(
    layer: Layer,
    *,
    prepared: Aligned,
    density: Annotated[
        float, Number("Density", "Share of each task's entries in the joint basis that survives the trim.", 0, 1, 0.01)
    ] = 0.2,
) -> Delta:
    """U · TIES(diag(s) V_tᵀ), trimmed over all layers together, elected and averaged entry by entry."""
    M = trimmed(prepared.matrices[layer.name], prepared.thresholds)
    return LowRank(prepared.bases[layer.name], elected(M, weights=layer.weights))
