"""Karcher mean: the average of the experts' directions on the sphere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.weights_of_experts import base_and_experts, gram_of_experts
from dcmerge.vectors.layers import Layer

_TOLERANCE = 1e-5
#: A mean of unit vectors shorter than this has no direction.
_ZERO = 1e-12


def _survey(layers: Sequence[Layer], *, iterations: int) -> dict[str, Tensor]:
    """What every expert counts in the mean of each parameter, (T,) in float64; zeros where all experts are."""
    return {name: mean_on_sphere(G, iterations) for name, G in gram_of_experts(layers).items()}


def mean_on_sphere(G: Tensor, iterations: int) -> Tensor:
    """The Karcher mean as shares a with θ = Σ a_t θ_t, (T,), of vectors whose products are G (T, T).

    Every step stays in the span of the vectors, so their products say all that it needs.
    """
    norms = G.diagonal().clamp_min(0).sqrt()
    there = norms > 0
    shares = torch.zeros_like(norms)
    if not there.any():
        return shares
    H = G[there][:, there] / (norms[there, None] * norms[None, there])  # products of the unit vectors
    u = torch.full((len(H),), 1 / len(H), dtype=H.dtype)
    length = (u @ H @ u).clamp_min(0).sqrt()
    u = u / length if length > _ZERO else torch.eye(len(H), dtype=H.dtype)[0]
    for _ in range(iterations):
        step = _logarithms(u, H).mean(dim=0)
        length = (step @ H @ step).clamp_min(0).sqrt()
        if length < _TOLERANCE:
            break
        u = torch.cos(length) * u + torch.sin(length) * step / length
    shares[there] = norms[there].mean() * u / norms[there]
    return shares


def _logarithms(u: Tensor, H: Tensor) -> Tensor:
    """log_u of unit vectors with products H (T, T), as shares of them (T, T): the direction from u, as long as the angle."""
    c = (H @ u).clamp(-1, 1)
    across = torch.eye(len(H), dtype=H.dtype) - c[:, None] * u
    size = ((across @ H) * across).sum(dim=1).clamp_min(0).sqrt()
    return torch.arccos(c)[:, None] * across / size.clamp_min(1e-300)[:, None]


@merging_method(
    "karcher",
    title="Karcher mean",
    idea="The mean of the experts' weights as directions on a sphere, with their mean length: SLERP for any number of models.",
    formula=r"u\leftarrow\exp_u\!\Big(\tfrac1T\textstyle\sum_t\log_u\tfrac{\theta_t}{\|\theta_t\|}\Big),"
    r"\quad\theta=\overline{\|\theta_t\|}\,u",
    source="Karcher 1977; for models: mergekit",
    everywhere=True,
    by_rows=True,
    prepare=_survey,
    needs=("weights", "base"),
)
def karcher(
    layer: Layer,
    *,
    prepared: Mapping[str, Tensor],
    iterations: Annotated[
        int, Number("Iterations", "At most this many steps towards the mean.", 1, 1000, 1, integer=True, soft_high=50)
    ] = 10,
) -> Tensor:
    """Karcher mean − θ0, each parameter by itself; ends at a step below 1e-5. Experts that are zero here do not count."""
    base, experts = base_and_experts(layer)
    shares = prepared[layer.name]
    if not shares.any():
        return experts.mean(dim=0) - base
    return torch.tensordot(shares, experts.double(), dims=1).to(layer.dtype) - base
