"""The experts' own weights of one parameter, and their products: what methods on the sphere of weights start from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank, dense
from dcmerge.vectors.layers import Layer, over_parts


def base_and_experts(layer: Layer) -> tuple[Tensor, Tensor]:
    """θ0 (*shape) and θ_1..θ_T (T, *shape) in the layer's dtype."""
    base = layer.base()
    return base, layer.dense_deltas().add_(base)


def gram_of_deltas(layers: Sequence[Layer]) -> dict[str, Tensor]:
    """⟨D_s, D_t⟩ of every parameter by name, (T, T) in float64; of adapters by their factors."""
    return _summed(layers, lambda part: _gram(part.deltas()))


def gram_of_experts(layers: Sequence[Layer]) -> dict[str, Tensor]:
    """⟨θ_s, θ_t⟩ of every parameter by name, (T, T) in float64."""
    return _summed(layers, lambda part: _gram(list(base_and_experts(part)[1])))


def cosine_of(G: Tensor, s: int, t: int) -> float:
    """The cosine of two of the vectors whose products are G; 0 where one of them is zero."""
    return (G[s, t] / max(math.sqrt(max(0.0, G[s, s].item() * G[t, t].item())), 1e-300)).item()


def _summed(layers: Sequence[Layer], look: Callable[[Layer], Tensor]) -> dict[str, Tensor]:
    return {layer.name: torch.stack(list(parts)).sum(dim=0) for layer, parts in over_parts(layers, look)}


def _gram(values: Sequence[Tensor | LowRank]) -> Tensor:
    factors = [one for one in values if isinstance(one, LowRank)]
    if len(factors) == len(values):
        return torch.tensor([[a.inner(b) for b in factors] for a in factors], dtype=torch.float64)
    X = torch.stack([dense(one).flatten() for one in values]).double()
    return X @ X.T
