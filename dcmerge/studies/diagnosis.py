"""Why a merge scores as it does: how its directions and its features relate to the experts'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dcmerge.evaluation import Bench, Model
from dcmerge.evaluation.drift import Drift, feature_drift
from dcmerge.studies.inspection import consistency
from dcmerge.vectors.task_vectors import Delta


@dataclass(frozen=True)
class DirSim:
    """Directional similarity of a merged task vector to each expert's, mean over the matrices (see ``alignment.dirsim``).

    ``table``: a row a task, a value for each of ``layers``; empty where an earlier version measured.
    """

    mean: float
    tasks: Mapping[str, float]
    layers: tuple[str, ...] = ()
    table: tuple[tuple[float, ...], ...] = ()


def directional_similarity(bench: Bench, merged: Mapping[str, Delta], cancelled: Callable[[], bool] | None = None) -> DirSim:
    """DirSim with every expert of the bench; 0 where no matrix has room for all tasks."""
    found = consistency(bench.vectors, merged, cancelled=cancelled)
    table = found.measures["DirSim"]
    means = table.mean(dim=1).tolist() if table.shape[1] else [0.0] * len(bench.vectors.tasks)
    by_task = dict(zip(bench.vectors.tasks, means, strict=True))
    return DirSim(sum(means) / len(means), by_task, found.layers, tuple(map(tuple, table.tolist())))


def diagnose(
    bench: Bench,
    merged: Mapping[str, Delta],
    model: Model,
    *,
    split: str,
    limit: int | None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[DirSim, Drift | None]:
    """Directions of the merged task vector, without the tasks' parts, and features of the model with them."""
    similarity = directional_similarity(bench, merged, cancelled)
    return similarity, feature_drift(bench, model, split=split, limit=limit, cancelled=cancelled)
