"""Karcher mean: the average of the experts' directions on the sphere."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.weights_of_experts import base_and_experts
from dcmerge.vectors.layers import Layer

_TOLERANCE = 1e-5


@merging_method(
    "karcher",
    title="Karcher mean",
    idea="The mean of the experts' weights as directions on a sphere, with their mean length: SLERP for any number of models.",
    formula=r"u\leftarrow\exp_u\!\Big(\tfrac1T\textstyle\sum_t\log_u\tfrac{\theta_t}{\|\theta_t\|}\Big),"
    r"\quad\theta=\overline{\|\theta_t\|}\,u",
    source="Karcher 1977; for models: mergekit",
    everywhere=True,
    needs=("weights", "base"),
)
def karcher(
    layer: Layer,
    *,
    iterations: Annotated[
        int, Number("Iterations", "At most this many steps towards the mean.", 1, 1000, 1, integer=True, soft_high=50)
    ] = 10,
) -> Tensor:
    """Karcher mean − θ0, each parameter by itself; ends at a step below 1e-5. Experts that are zero here do not count."""
    base, experts = base_and_experts(layer)
    points = experts.double().reshape(len(experts), -1)
    norms = points.norm(dim=1)
    points, norms = points[norms > 0], norms[norms > 0]
    if not len(norms):
        return experts.mean(dim=0) - base
    units = points / norms[:, None]
    u = units.mean(dim=0)
    u = u / u.norm() if u.norm() > 0 else units[0]
    for _ in range(iterations):
        step = _logarithms(u, units).mean(dim=0)
        length = step.norm()
        if length < _TOLERANCE:
            break
        u = torch.cos(length) * u + torch.sin(length) * step / length
    return (norms.mean() * u).reshape(layer.shape).to(layer.dtype) - base


def _logarithms(u: Tensor, units: Tensor) -> Tensor:
    """log_u of unit vectors (T, d): the direction along the sphere from u, as long as the angle."""
    c = (units @ u).clamp(-1, 1)
    across = units - c[:, None] * u
    return torch.arccos(c)[:, None] * across / across.norm(dim=1, keepdim=True).clamp_min(1e-300)
