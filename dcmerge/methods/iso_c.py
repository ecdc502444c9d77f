"""Iso-C: isotropic merging in the common subspace."""

from __future__ import annotations

from dcmerge.checkpoints import LowRank
from dcmerge.methods.registry import merging_method
from dcmerge.spectral.linalg import truncated_svd
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta


@merging_method(
    "iso_c",
    title="Iso-C",
    idea="Sum the task vectors, then give every singular direction of the sum the same weight.",
    formula=r"\tau=\bar\sigma\,UV^\top,\quad \textstyle\sum_t\tau_t=U\Sigma V^\top,\ \bar\sigma=\mathrm{mean}(\Sigma)",
    source="Marczak et al. 2025, arXiv 2502.04959",
    keeps_factors=True,
    sees_factors=True,
)
def iso_c(layer: Layer) -> Delta:
    """σ̄ U Vᵀ of the summed deltas, σ̄ their mean singular value: over min(m, n) directions, over T·r of adapters.

    Directions that the sum does not have get no weight: their singular vectors are arbitrary.
    """
    r = layer.joint_rank()
    svd = truncated_svd(layer.sum(), r).present()
    return layer.in_kind(LowRank(svd.s.sum() / max(r, 1) * svd.U, svd.V.T))
