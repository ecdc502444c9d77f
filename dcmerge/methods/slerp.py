"""SLERP: half way between two experts on the sphere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from torch import Tensor

from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.weights_of_experts import base_and_experts, cosine_of, gram_of_experts
from dcmerge.vectors.layers import Layer

#: Above this cosine the arc is a line.
_PARALLEL = 0.9995


def _survey(layers: Sequence[Layer], *, position: float) -> dict[str, Tensor]:
    return gram_of_experts(layers)


@merging_method(
    "slerp",
    title="SLERP",
    idea="A point on the arc between two experts' weights, which keeps their length where the straight line would shorten it.",
    formula=r"\theta=\frac{\sin((1-t)\Omega)}{\sin\Omega}\,\theta_1+\frac{\sin(t\Omega)}{\sin\Omega}\,\theta_2,"
    r"\quad\cos\Omega=\cos(\theta_1,\theta_2)",
    source="Shoemake 1985; for models: mergekit",
    everywhere=True,
    by_rows=True,
    prepare=_survey,
    needs=("weights", "base"),
    experts=2,
)
def slerp(
    layer: Layer,
    *,
    prepared: Mapping[str, Tensor],
    position: Annotated[float, Number("Position t", "0 is the first expert, 1 the second.", 0, 1, 0.05)] = 0.5,
) -> Tensor:
    """slerp(θ_1, θ_2; t) − θ0, each parameter by itself; the straight line where |cos Ω| > 0.9995 or one of them is zero."""
    base, (first, second) = base_and_experts(layer)
    return arc(first, second, position, prepared[layer.name]) - base


def arc(first: Tensor, second: Tensor, t: float, G: Tensor) -> Tensor:
    """The point at t on the arc from the first to the second tensor, or a part of it; G are their products, (2, 2)."""
    c = cosine_of(G, 0, 1)
    if abs(c) > _PARALLEL or not (G.diagonal() > 0).all():
        return (1 - t) * first + t * second
    omega = math.acos(c)
    return (math.sin((1 - t) * omega) * first + math.sin(t * omega) * second) / math.sin(omega)
