"""What Surgery and IntervMerge share: another method's merge that is repaired, and the experts as teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dcmerge.checkpoints import dense
from dcmerge.evaluation import TaskModule
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.adaptation import starting_scale
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.loop import merged_deltas
from dcmerge.methods.registry import method
from dcmerge.vectors.layers import Layer

ORIGINS = ("average", "task_arithmetic", "ties", "tsv_m", "iso_c", "dc_merge", "lot", "adamerging")
ORIGIN = Choice("Repairs", "The merge that is repaired, with its defaults.", ORIGINS)
SCALE = Number(
    "Its α",
    "Scale of the merge that is repaired.",
    0,
    1000,
    0.05,
    soft_high=3,
    auto="its own, or the best by the labels of validation images",
)


@dataclass(frozen=True, eq=False)
class Repaired:
    """The merge with its α applied, and what each task adds."""

    deltas: Mapping[str, Tensor]
    modules: Mapping[str, TaskModule]


def scaled_merge(layers: Sequence[Layer], calibration: Calibration, origin: str, scale: float | None) -> dict[str, Tensor]:
    """α times another method's merged task vector, α its own, given, or the best on validation."""
    vectors, bench = layers[0].vectors, calibration.bench
    merged = dict(merged_deltas(vectors, origin, bench=bench, cancelled=calibration.cancelled))
    if scale is None and method(origin).fixed_scale:
        scale = method(origin).usual_scale
    scale = starting_scale(calibration, merged, scale)
    return {name: scale * dense(delta) for name, delta in merged.items()}


def notes_on_scale(layers: Sequence[Layer], *, origin: str, merged_scale: float | None, **_: object) -> tuple[str, ...]:
    """That the α of the repaired merge was chosen by labels, where it was."""
    if merged_scale is not None or method(origin).fixed_scale:
        return ()
    return ("the α of the merge that it repairs is the best by labels of validation images; with one given it needs no labels",)


def modules_of(layers: Sequence[Layer], prepared: Repaired) -> Mapping[str, TaskModule]:
    return prepared.modules


def distance_to_teachers(
    z: Callable[[str, Tensor], Tensor], teachers: Mapping[str, Tensor], picks: Mapping[str, Tensor]
) -> Tensor:
    """Σ_t mean |z_t − z_t of expert t| over a batch of every task; ``z(task, pick)`` gives the student's embeddings."""
    distances = [(z(task, pick) - teachers[task][pick]).abs().mean() for task, pick in picks.items()]
    return torch.stack(distances).sum()
