"""TIES: trim, elect sign, merge; over the whole flattened model, as its authors do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.registry import merging_method
from dcmerge.spectral.alignment import elected, kept_by_rank, kept_entries
from dcmerge.vectors.layers import Layer, magnitude_at


@dataclass(frozen=True)
class WholeModel:
    """What TIES needs from the flattened model: each task's magnitude threshold (T,), and the sign for undecided entries."""

    thresholds: Tensor
    majority_sign: Tensor


def trimmed(deltas: Tensor, thresholds: Tensor) -> Tensor:
    """Entries below their task's magnitude threshold set to zero; (T, ...)."""
    return deltas * kept_entries(deltas, thresholds)


def _survey(layers: Sequence[Layer], *, density: float, aggregate: str, trim: str) -> WholeModel | None:
    """Passes over the model, one parameter in memory at a time: thresholds, then the majority of signs.

    None where each parameter is trimmed by itself, which needs no look at the others.
    """
    if trim == "parameter":
        return None
    thresholds = trim_thresholds(layers, density)
    signs = (trimmed(layer.dense_deltas(), thresholds).sum(dim=0).sign().sum() for layer in layers)
    return WholeModel(thresholds, torch.sign(sum(signs, torch.zeros(()))))


def trim_thresholds(layers: Sequence[Layer], density: float) -> Tensor:
    """Each task's threshold over all these parameters together, (T,); one parameter is in memory at a time."""
    dropped = dropped_by(sum(layer.parameter.numel for layer in layers), density)
    none = torch.zeros((), dtype=layers[0].dtype)
    return torch.stack([magnitude_at(layers, task, dropped) if dropped else none for task in layers[0].tasks])


def dropped_by(count: int, density: float) -> int:
    """k = d − floor(density · d) of d entries: the k-th smallest magnitude is where the authors' trim cuts."""
    return count - int(density * count)


def kept_threshold(magnitudes: Tensor, density: float) -> Tensor:
    """Where a trim of (d,) magnitudes to ``density`` cuts."""
    dropped = dropped_by(magnitudes.numel(), density)
    return magnitudes.kthvalue(dropped).values if dropped else magnitudes.new_zeros(())


@merging_method(
    "ties",
    title="TIES-Merging",
    idea="Keep each task's largest entries, elect a sign per entry, and merge only the tasks that agree with it.",
    formula=r"\tau = \mathrm{mean}_{t:\,\mathrm{sign}(\hat\tau_t)=\gamma}\,\hat\tau_t,\quad \gamma=\mathrm{sign}\sum_t\hat\tau_t",
    source="Yadav et al. 2023, arXiv 2306.01708",
    everywhere=True,
    prepare=_survey,
    separable=True,
)
def ties(
    layer: Layer,
    *,
    prepared: WholeModel | None,
    density: Annotated[float, Number("Density", "Share of each task vector's entries that survives the trim.", 0, 1, 0.01)] = 0.2,
    aggregate: Annotated[
        str,
        Choice(
            "Aggregation", "mean: over the tasks that agree with the elected sign (the paper). sum: their sum.", ("mean", "sum")
        ),
    ] = "mean",
    trim: Annotated[
        str,
        Choice(
            "Trim over",
            "model: the largest entries of the whole model (the authors). parameter: those of each parameter "
            "(mergekit); there, entries whose signs cancel count as positive.",
            ("model", "parameter"),
        ),
    ] = "model",
) -> Tensor:
    """Disjoint mean or sum of the trimmed deltas that agree with the elected sign; zeros never count."""
    if prepared is None:
        D = torch.stack([_largest(delta, density) for delta in layer.dense_deltas()])
        return elected(D, 1.0, aggregate, layer.weights)
    D = trimmed(layer.dense_deltas(), prepared.thresholds)
    return elected(D, prepared.majority_sign, aggregate, layer.weights)


def _largest(delta: Tensor, density: float) -> Tensor:
    """The share ``density`` of one delta's entries, at least one of them where the share is not 0, as in mergekit."""
    return kept_by_rank(delta, 0, max(int(density > 0), int(density * delta.numel())))
