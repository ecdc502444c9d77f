"""RegMean: the weights that answer all tasks' inputs as the experts do, by linear regression."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dcmerge.methods.declare import Number
from dcmerge.methods.from_images import EXEMPLARS, SEED, SPLIT, Inputs, as_linear, from_linear, inputs_of_experts
from dcmerge.methods.registry import merging_method
from dcmerge.methods.weights_of_experts import base_and_experts
from dcmerge.spectral.linalg import answered
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta


@merging_method(
    "regmean",
    title="RegMean",
    idea="In every linear layer, find the weights whose answers to all tasks' inputs are closest to the experts' answers. Inputs "
    "that no task shows are lost, with what the base knew of them.",
    formula=r"W=\Big(\sum_t G_t\Big)^{\!+}\sum_t G_t W_t,\quad G_t=\tfrac1n X_t^\top X_t\ \text{(off-diagonal}\times a)",
    source="Jin et al. 2023, arXiv 2212.09849",
    needs=("weights", "base", "images"),
    everywhere=True,
    prepare=inputs_of_experts,
    fixed_scale="it solves for the weights themselves",
)
def regmean(
    layer: Layer,
    *,
    prepared: Inputs,
    off_diagonal: Annotated[
        float,
        Number(
            "Off-diagonal a",
            "Factor on the off-diagonal of every Gram matrix: 1 is plain regression, 0 weighs each input by itself.",
            0,
            1,
            0.05,
        ),
    ] = 0.9,
    exemplars: Annotated[int, EXEMPLARS] = 256,
    images: Annotated[str, SPLIT] = "val",
    seed: Annotated[int, SEED] = 0,
) -> Delta:
    """Linear layers: (Σ W_t G_t)(Σ G_t)⁺ minus the base; all else: the mean."""
    inputs = [prepared[task] for task in layer.tasks]
    if layer.name not in inputs[0].grams:
        return layer.mean()
    G = torch.stack([own.grams[layer.name] / own.tokens[layer.name] for own in inputs])
    base, W = base_and_experts(layer)
    return (regression(layer.name, W, shrunk(G, off_diagonal)) - base.double()).to(W.dtype)


def shrunk(G: Tensor, off_diagonal: float) -> Tensor:
    """Gram matrices (T, d, d) with everything off the diagonal times ``off_diagonal``."""
    return off_diagonal * G + (1 - off_diagonal) * torch.diag_embed(G.diagonal(dim1=1, dim2=2))


def regression(name: str, W: Tensor, G: Tensor) -> Tensor:
    """The minimiser of Σ_t tr((X − W_t) G_t (X − W_t)ᵀ) with the least norm, float64; shaped as one weight."""
    merged = answered((as_linear(name, W).double() @ G).sum(dim=0), G.sum(dim=0))
    return from_linear(name, merged, tuple(W.shape[1:]))
