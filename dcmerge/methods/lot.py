"""LOT Merging: the task vector with the least feature drift, layer by layer in closed form."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dcmerge.methods.from_images import EXEMPLARS, SEED, SPLIT, Inputs, as_linear, from_linear, inputs_of_experts
from dcmerge.methods.registry import merging_method
from dcmerge.spectral.linalg import answered
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta


@merging_method(
    "lot",
    title="LOT Merging",
    idea="In every layer, find the task vector that keeps the features of all tasks closest to those of their experts, measured "
    "on a few unlabeled images.",
    formula=r"\tau^l=\arg\min_T\sum_t\|X_t^l(T-\tau_t^l)\|_F^2=\Big(\sum_t X_t^\top X_t\Big)^{\!+}\sum_t X_t^\top X_t\,\tau_t",
    source="Sun et al. 2025, arXiv 2505.23859",
    needs=("weights", "images"),
    everywhere=True,
    prepare=inputs_of_experts,
    usual_scale=1.2,
)
def lot(
    layer: Layer,
    *,
    prepared: Inputs,
    exemplars: Annotated[int, EXEMPLARS] = 64,
    images: Annotated[str, SPLIT] = "val",
    seed: Annotated[int, SEED] = 0,
) -> Delta:
    """Weights of linear layers: (Σ D_t G_t)(Σ G_t)⁺ with G_t = Σ x xᵀ; scales of norms: the mean weighted by Σ x̂²; all else:
    the mean, which is exact for biases and shifts.

    Query, key and value see the same inputs, so the fused projection is solved row by row as three would be. The patch
    embedding is a linear layer of its pixels; the authors' code leaves it at the mean.
    """
    inputs = [prepared[task] for task in layer.tasks]
    if layer.name in inputs[0].grams:
        G = torch.stack([own.grams[layer.name] for own in inputs])
        return least_drift(layer.name, layer.dense_deltas(), G)
    if layer.name in inputs[0].squares:
        D, weights = layer.dense_deltas(), torch.stack([own.squares[layer.name] for own in inputs])
        return ((weights * D).sum(dim=0) / weights.sum(dim=0).clamp_min(1e-10)).to(D.dtype)
    return layer.mean()


def least_drift(name: str, D: Tensor, G: Tensor) -> Tensor:
    """The minimiser of Σ_t tr((T − D_t) G_t (T − D_t)ᵀ) with the least norm, in float64; shaped as one delta."""
    matrices = as_linear(name, D).double()
    merged = answered((matrices @ G).sum(dim=0), G.sum(dim=0))
    return from_linear(name, merged, tuple(D.shape[1:])).to(D.dtype)
