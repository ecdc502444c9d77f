"""Model Breadcrumbs: leave out the largest and the smallest entries of each task vector."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.spectral.alignment import kept_by_rank
from dcmerge.vectors.layers import Layer


@merging_method(
    "breadcrumbs",
    title="Model Breadcrumbs",
    idea="Leave out each task vector's few largest entries, which are outliers, and its smallest, which are noise; add the rest.",
    formula=r"\tau=\sum_t m_t\circ\tau_t,\quad m_t=1[\,\eta_t<|\tau_t|\le\beta_t\,]\ \text{per parameter}",
    source="Davari and Belilovsky 2023, arXiv 2312.06795",
    everywhere=True,
    usual_scale=0.3,
)
def breadcrumbs(
    layer: Layer,
    *,
    density: Annotated[float, Number("Density", "Share of each parameter's entries that is kept.", 0, 1, 0.01)] = 0.9,
    gamma: Annotated[float, Number("Outliers", "Share of the largest entries that is left out.", 0, 1, 0.01)] = 0.01,
) -> Tensor:
    """Σ_t of each delta's entries of rank γ·d .. (γ + density)·d by magnitude, the largest first. Defaults as in mergekit."""
    return torch.stack([_middle(delta, density, gamma) for delta in layer.dense_deltas()]).sum(dim=0)


def _middle(delta: Tensor, density: float, gamma: float) -> Tensor:
    # Both counts rounded down, as mergekit does.
    return kept_by_rank(delta, int(gamma * delta.numel()), int(density * delta.numel()))
