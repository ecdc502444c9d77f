"""DARE: drop entries at random and rescale the rest, then add."""

from __future__ import annotations

import zlib
from functools import reduce
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.checkpoints import dense
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.usual_scales import growing_for_few
from dcmerge.runtime.threads import on_all_threads
from dcmerge.spectral.alignment import elected
from dcmerge.vectors.compatibility import PART_ENTRIES
from dcmerge.vectors.layers import Layer

SEED = Number("Seed", "Which random draw: the same seed gives the same merge.", 0, 2**31 - 1, 1, integer=True, soft_high=10)
#: Sums of magnitudes below this are not rescaled, as in mergekit.
_SMALL = 1e-7


@merging_method(
    "dare",
    title="DARE",
    idea="Drop most entries of each task vector at random and enlarge the rest, so that each keeps its expectation and "
    "tasks collide less.",
    formula=r"\tau=\sum_t \frac{m_t\circ\tau_t}{d},\quad m_t\sim\mathrm{Bernoulli}(d)",
    source="Yu et al. 2024, arXiv 2311.03099",
    everywhere=True,
    usual_scale=0.3,
    usual_scale_of=growing_for_few(0.3),
    order_matters=True,
    may_enlarge=True,
    separable=True,
)
def dare(
    layer: Layer,
    *,
    density: Annotated[
        float, Number("Density", "Share of the entries that survives; the paper drops up to 90 %.", 0.01, 1, 0.01)
    ] = 0.5,
    seed: Annotated[int, SEED] = 0,
    rescale: Annotated[
        str,
        Choice(
            "Rescaling",
            "density: survivors are divided by the density (the paper). l1: enlarged until each parameter has "
            "its former sum of magnitudes (mergekit). none: left as they are.",
            ("density", "l1", "none"),
        ),
    ] = "density",
    combine: Annotated[
        str,
        Choice(
            "Combination",
            "sum: of all tasks. elected_sum, elected_mean: of the tasks that agree with the sign of the sum, "
            "entry by entry (DARE-TIES).",
            ("sum", "elected_sum", "elected_mean"),
        ),
    ] = "sum",
) -> Tensor:
    """Σ_t m_t ∘ D_t / d, every entry of m_t being 1 with probability d. Each task and parameter draws for itself."""
    D = kept_at_random(layer, density, seed, rescale)
    if combine == "sum":
        return reduce(Tensor.add_, D)
    return elected(torch.stack(D), undecided=1.0, aggregate=combine.removeprefix("elected_"), weights=layer.weights)


def kept_at_random(layer: Layer, density: float, seed: int, rescale: str = "density") -> list[Tensor]:
    """m_t ∘ D_t / d of every task; ``rescale`` as in ``dare``."""
    draws = [f"{seed} {layer.name} {task}" for task in layer.tasks]
    deltas = [dense(delta).contiguous() for delta in layer.deltas()]  # our own, so they are changed in place
    kept = on_all_threads(lambda one: _kept(*one, density, rescale), list(zip(deltas, draws, strict=True)), _worth(layer))
    return list(kept)


def _worth(layer: Layer) -> bool:
    return layer.parameter.numel > PART_ENTRIES


def _kept(delta: Tensor, name: str, density: float, rescale: str) -> Tensor:
    draw = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    before = after = 0.0
    for part in delta.view(-1).split(PART_ENTRIES):
        before += part.abs().sum().item()
        part *= torch.rand(part.shape, generator=draw) < density
        after += part.abs().sum().item()
    if rescale == "density":
        return delta.div_(density)
    return delta.mul_(before / after) if rescale == "l1" and min(before, after) >= _SMALL else delta
