"""Measures the columns of a layer table: of the experts alone, of a merge's directions, of its features, of a damage map."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dcmerge.evaluation.drift import Drift
from dcmerge.spectral.spectra import effective_rank
from dcmerge.studies.damage import EXPERT, DamageMap
from dcmerge.studies.inspection import Consistency, matrices
from dcmerge.studies.layer_table.found import (
    DAMAGE,
    DIRSIM,
    DRIFT,
    EFFECTIVE_RANK,
    NORM,
    OF_SET,
    OVERLAP,
    TOP_SHARE,
    LayerTable,
)
from dcmerge.studies.pieces import Piece, Pieces, stacked
from dcmerge.studies.verdict.relations import relations
from dcmerge.vectors.layers import Layer, layer_of
from dcmerge.vectors.naming import Depth
from dcmerge.vectors.task_vectors import TaskVectors


def of_set(
    vectors: TaskVectors,
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> LayerTable:
    """What the experts changed in every matrix; the singular values are shared with methods and pictures. Raises Cancelled."""
    return columns_of_set(vectors).whole(progress, cancelled)


def columns_of_set(vectors: TaskVectors) -> Pieces[LayerTable]:
    """``of_set`` matrix by matrix."""
    names = tuple(matrices(vectors))

    def together(found: Mapping[str, Piece]) -> LayerTable:
        unknown = torch.full((len(vectors.tasks),), math.nan, dtype=torch.float64)
        return LayerTable(vectors.tasks, names, {column: stacked(found, names, column, unknown).T for column in OF_SET})

    return Pieces("layer table", vectors, names, lambda name: _of_layer(layer_of(vectors, name)), together)


def _of_layer(layer: Layer) -> dict[str, Tensor]:
    """Each column's values of one matrix, (T,)."""
    spectra = layer.spectra()  # first: a smaller rank then reuses its factors
    found = relations(layer)
    shared, chance = found.shared.sum(dim=0), found.chance.sum(dim=0)
    ratios = torch.where(chance > 0, shared / chance, math.nan)
    ratios.fill_diagonal_(math.nan)
    return {
        NORM: found.norms,
        EFFECTIVE_RANK: torch.tensor([effective_rank(s) for s in spectra], dtype=torch.float64),
        TOP_SHARE: 100 * found.largest / found.energy.clamp_min(torch.finfo(torch.float64).tiny),
        OVERLAP: ratios.nanmean(dim=1),
    }


def of_merge(vectors: TaskVectors, found: Consistency) -> LayerTable:
    """DirSim of a merge, of the matrices that have room for all tasks."""
    return LayerTable(vectors.tasks, found.layers, {DIRSIM: found.measures["DirSim"].double()})


def of_drift(vectors: TaskVectors, drift: Drift) -> LayerTable:
    """Drift of the features after each matrix's block; after the blocks that of the features that the heads read."""
    names = tuple(matrices(vectors))
    table = torch.full((len(vectors.tasks), len(names)), math.nan, dtype=torch.float64)
    after_blocks = False
    for place, name in enumerate(names):
        depth = vectors.depth(name)
        after_blocks |= depth is not None
        for row, task in enumerate(vectors.tasks):
            if task in drift.tasks:
                table[row, place] = _drift_at(drift, drift.tasks.index(task), depth, after_blocks)
    return LayerTable(vectors.tasks, names, {DRIFT: table})


def _drift_at(drift: Drift, row: int, depth: Depth | None, after_blocks: bool) -> float:
    """In units of the base's; NaN before the blocks, of another stack, and where the expert is still the base."""
    blocks = len(drift.places) - 1
    if depth is None and not after_blocks or depth is not None and depth.blocks != blocks:
        return math.nan
    column = blocks if depth is None else depth.block
    ratio = drift.ratios[row][column]
    return math.nan if ratio is None else ratio


def of_damage(vectors: TaskVectors, found: DamageMap) -> LayerTable:
    """What each task gains in points when a matrix is put back to its expert's; a map without that change has none."""
    names, changed = tuple(matrices(vectors)), found.changed.get(EXPERT, {})
    table = torch.full((len(vectors.tasks), len(names)), math.nan, dtype=torch.float64)
    for place, name in enumerate(names):
        if name in changed:
            table[:, place] = torch.tensor(_cells(found, name, vectors.tasks), dtype=torch.float64)
    return LayerTable(vectors.tasks, names, {DAMAGE: table})


def _cells(found: DamageMap, name: str, tasks: tuple[str, ...]) -> list[float]:
    own: Mapping[str, float] = {task: 100 * found.cell(EXPERT, name, task).value for task in found.tasks}
    return [own.get(task, math.nan) for task in tasks]
