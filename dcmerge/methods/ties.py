"""TIES: trim, elect sign, merge; over the whole flattened model, as its authors do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.checkpoints import dense, total
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.registry import merging_method
from dcmerge.spectral.alignment import elected, kept_entries
from dcmerge.vectors.layers import Layer, over_parts
from dcmerge.vectors.selection import Cut, cuts, magnitudes_at


@dataclass(frozen=True)
class WholeModel:
    """What TIES needs from the flattened model: each task's magnitude threshold (T,), and the sign for undecided entries."""

    thresholds: Tensor
    majority_sign: Tensor


def trimmed(deltas: Tensor, thresholds: Tensor) -> Tensor:
    """Entries below their task's magnitude threshold set to zero; (T, ...)."""
    return deltas * kept_entries(deltas, thresholds)


#: name -> the cut of every task, where each parameter is trimmed by itself.
Cuts = Mapping[str, Sequence[Sequence[Cut]]]


def _survey(layers: Sequence[Layer], *, density: float, aggregate: str, trim: str) -> WholeModel | Cuts:
    """Passes over the model, one part of a parameter in memory at a time: thresholds, then the majority of signs."""
    if trim == "parameter":
        return cuts(layers, lambda count: [_kept_of(count, density)])
    thresholds = trim_thresholds(layers, density)
    found = over_parts(layers, lambda part: dense(total(trimmed(part.dense_deltas(), thresholds).unbind())).sign().sum())
    return WholeModel(thresholds, torch.sign(sum((signs for _, parts in found for signs in parts), torch.zeros(()))))


def trim_thresholds(layers: Sequence[Layer], density: float) -> Tensor:
    """Each task's threshold over all these parameters together, (T,); one parameter is in memory at a time."""
    dropped = dropped_by(sum(layer.parameter.numel for layer in layers), density)
    return magnitudes_at(layers, dropped) if dropped else torch.zeros(len(layers[0].tasks), dtype=layers[0].dtype)


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
    by_rows=True,
    prepare=_survey,
    separable=True,
)
def ties(
    layer: Layer,
    *,
    prepared: WholeModel | Cuts,
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
    D = layer.dense_deltas()
    if isinstance(prepared, WholeModel):
        return elected(trimmed(D, prepared.thresholds), prepared.majority_sign, aggregate, layer.weights)
    kept = [own[0].kept(delta, layer.first) for delta, own in zip(D, prepared[layer.name], strict=True)]
    return elected(D.mul_(torch.stack(kept)), 1.0, aggregate, layer.weights)


def _kept_of(count: int, density: float) -> int:
    """The share ``density`` of so many entries, at least one of them where the share is not 0, as in mergekit."""
    return max(int(density > 0), int(density * count))
