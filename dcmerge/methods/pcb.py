"""PCB-Merging: weigh every entry by its own size and by how much it agrees with the other tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.methods.declare import Number
from dcmerge.methods.registry import merging_method
from dcmerge.spectral.alignment import per_task
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.selection import magnitudes

#: Share of the entries at either end whose magnitude is clamped, as in the authors' script for vision models.
_EXTREMES = 0.01


@dataclass(frozen=True)
class Ranges:
    """Of the flattened model, one value a task (T,): clamped magnitudes' range, then the competition's threshold and maximum."""

    low: Tensor
    high: Tensor
    threshold: Tensor
    top: Tensor


def competition(D: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """β_t = exp(T · n_t²) ∘ tanh(D_t ∘ ΣD), (T, ...): n_t is |D_t| clamped to low .. high and scaled to 0 .. 1."""
    sizes, low, high = clamped(D, low, high).abs(), per_task(low, D), per_task(high, D)
    n = (sizes - low).clamp_min(0) / (high - low).clamp_min(1e-30)
    return torch.exp(len(D) * n.square()) * torch.tanh(D * D.sum(dim=0))


def _survey(layers: Sequence[Layer], *, ratio: float) -> Ranges:
    """Two passes over the model for every task: the range of its magnitudes, then that of its competition."""
    tasks = range(len(layers[0].tasks))
    sizes = [magnitudes(layers, task) for task in layers[0].tasks]
    low, high = (torch.stack([_quantile(own, q) for own in sizes]) for q in (_EXTREMES, 1 - _EXTREMES))
    del sizes
    found = [torch.cat([competition(layer.dense_deltas(), low, high)[t].flatten() for layer in layers]) for t in tasks]
    threshold = torch.stack([_quantile(beta, 1 - ratio) for beta in found])
    return Ranges(low, high, threshold, torch.stack([beta.max() for beta in found]))


def _quantile(values: Tensor, q: float) -> Tensor:
    """The smallest of (d,) values that a share q lies at or below (torch.quantile refuses long vectors)."""
    return values.kthvalue(min(values.numel(), max(1, round(q * values.numel())))).values


@merging_method(
    "pcb",
    title="PCB-Merging",
    idea="Balance competing parameters: an entry counts by its own size and by its agreement with the sum of all tasks; the weak "
    "ones are dropped, the others averaged by weight.",
    formula=r"\tau=\frac{\sum_t\tau_t\circ s_t}{\sum_t s_t},\quad s_t=\mathrm{minmax}\max(\beta_t,q),"
    r"\ \beta_t=e^{T\,n(|\tau_t|)^2}\circ\tanh(\tau_t\circ\textstyle\sum_u\tau_u)",
    source="Du et al. 2024, arXiv 2410.02396",
    everywhere=True,
    prepare=_survey,
    usual_scale=1.2,
    homogeneous=False,
    differs="Agreement is with the sum of the task vectors, as in the published README; the authors' script for vision models"
    " takes the sum of the normalised ones.",
)
def pcb(
    layer: Layer,
    *,
    prepared: Ranges,
    ratio: Annotated[float, Number("Ratio", "Share of each task vector's entries that survives.", 0, 1, 0.01)] = 0.05,
) -> Tensor:
    """Weighted mean of the clamped deltas with s_t in 0 .. 1, zero for all but about ``ratio`` of a task's entries.

    Clamped: every magnitude within the range that leaves 1 % of the task's entries out at either end, as in all published code.
    Agreement is with the sum of the deltas as they are (the published README's form; the authors' script for vision models takes
    the sum of the normalised ones).
    """
    D = layer.dense_deltas()
    s = scores(D, prepared)
    return (clamped(D, prepared.low, prepared.high) * s).sum(dim=0) / s.sum(dim=0).clamp_min(1e-12)


def clamped(D: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """D (T, ...) with magnitudes in low .. high, both (T,); an entry without a sign stays 0."""
    return D.sign() * D.abs().clamp(min=per_task(low, D), max=per_task(high, D))


def scores(D: Tensor, ranges: Ranges) -> Tensor:
    """s_t of one parameter, (T, ...) in 0 .. 1."""
    threshold, top = per_task(ranges.threshold, D), per_task(ranges.top, D)
    above = (competition(D, ranges.low, ranges.high) - threshold).clamp_min(0)
    return above / (top - threshold).clamp_min(1e-30)
