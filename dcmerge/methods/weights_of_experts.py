"""The experts' own weights of one parameter: what methods on the sphere of weights start from."""

from __future__ import annotations

from torch import Tensor

from dcmerge.vectors.layers import Layer


def base_and_experts(layer: Layer) -> tuple[Tensor, Tensor]:
    """θ0 (*shape) and θ_1..θ_T (T, *shape) in the layer's dtype."""
    base = layer.vectors.base_tensor(layer.name).to(layer.dtype)
    return base, base + layer.dense_deltas()
