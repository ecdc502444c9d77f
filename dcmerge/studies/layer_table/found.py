"""Values by task and matrix, under the names of what they measure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from dcmerge.errors import InputError, listed
from dcmerge.runs.tables import as_csv as csv_text
from dcmerge.vectors.naming import place_of

NORM, EFFECTIVE_RANK, TOP_SHARE, OVERLAP = "norm", "effective rank", "top share", "overlap, times chance"
DIRSIM, DRIFT, DAMAGE = "DirSim", "drift", "damage"
#: What each column says, those of the experts alone first.
COLUMNS = {
    NORM: "length of the expert's change of the matrix",
    EFFECTIVE_RANK: "how many directions of the change really count",
    TOP_SHARE: "share of its energy in the largest singular value, %",
    OVERLAP: "how many times as much of its main directions it shares with the other experts as chance would give",
    DIRSIM: "how well the merged matrix still points where the expert pointed, 0 to 1",
    DRIFT: "how far the features after the matrix's block lie from the expert's, in units of the base's distance",
    DAMAGE: "points of accuracy that the task gains when the matrix is put back to its expert's",
}
OF_SET, OF_MERGE = (NORM, EFFECTIVE_RANK, TOP_SHARE, OVERLAP), (DIRSIM, DRIFT, DAMAGE)


@dataclass(frozen=True, eq=False)
class LayerTable:
    """``values``: of each column (T, L) float64, a row a task and a value a matrix of ``layers``; NaN where there is none."""

    tasks: tuple[str, ...]
    layers: tuple[str, ...]
    values: Mapping[str, Tensor] = field(repr=False)

    def __or__(self, other: LayerTable) -> LayerTable:
        """With the columns of another table of the same set, whose matrices may be others."""
        return replace(self, values={**self.values, **{name: other.on(self.layers, name) for name in other.values}})

    def __sub__(self, other: LayerTable) -> LayerTable:
        """The columns of both that depend on the merge, subtracted; the others as they are here."""
        common = [name for name in OF_MERGE if name in self.values and name in other.values]
        kept = {name: value for name, value in self.values.items() if name in OF_SET}
        return replace(self, values={**kept, **{n: self.values[n] - other.on(self.layers, n) for n in common}})

    def on(self, layers: tuple[str, ...], column: str) -> Tensor:
        """A column for these matrices, (T, len(layers)); NaN for those that this table lacks."""
        own = {name: place for place, name in enumerate(self.layers)}
        table = torch.full((len(self.tasks), len(layers)), math.nan, dtype=torch.float64)
        for place, name in enumerate(layers):
            if name in own:
                table[:, place] = self.values[column][:, own[name]]
        return table

    def mean(self, column: str) -> list[float | None]:
        """A value a matrix: the mean over the tasks that have one; None where none has."""
        return list(map(_known, self.values[column].nanmean(dim=0).tolist()))

    def matching(self, pattern: str) -> LayerTable:
        """The matrices whose name or label fits a pattern with * and ?, or holds the text."""
        wanted = pattern.lower()
        keep = [place for place, name in enumerate(self.layers) if _fits(name, wanted)]
        return self.taken(keep)

    def one(self, text: str) -> str:
        """The matrix of that name or label, or the only one that a pattern fits; raises InputError where there is no such."""
        exact = [name for name in self.layers if text.lower() in (name.lower(), place_of(name).label.lower())]
        fitting = exact or self.matching(text).layers
        if len(fitting) != 1:
            got = f"which fits {listed(fitting)}" if fitting else "which fits none"
            raise InputError(f"layer: expected the name of one matrix, got {text!r:.100}, {got}")
        return fitting[0]

    def taken(self, places: list[int]) -> LayerTable:
        """Only these matrices, in this order."""
        values = {name: value[:, places] for name, value in self.values.items()}
        return replace(self, layers=tuple(self.layers[place] for place in places), values=values)

    def sorted(self, column: str) -> LayerTable:
        """The matrices with the largest mean of a column first, those without one last."""
        means = self.mean(column)
        order = sorted(range(len(self.layers)), key=lambda place: -(value if (value := means[place]) is not None else -math.inf))
        return self.taken(order)


def _fits(name: str, wanted: str) -> bool:
    texts = (name.lower(), place_of(name).label.lower())
    return any(fnmatchcase(text, wanted) or wanted in text for text in texts)


def rows(found: LayerTable) -> list[dict[str, Any]]:
    """One row a matrix, every column its mean over the tasks."""
    means = {name: found.mean(name) for name in COLUMNS if name in found.values}
    return [
        {**_about(name), **{column: values[place] for column, values in means.items()}} for place, name in enumerate(found.layers)
    ]


def task_rows(found: LayerTable) -> list[dict[str, Any]]:
    """One row a matrix and task."""
    tables = {name: found.values[name].tolist() for name in COLUMNS if name in found.values}
    return [
        {**_about(name), "task": task} | {column: _known(table[row][place]) for column, table in tables.items()}
        for place, name in enumerate(found.layers)
        for row, task in enumerate(found.tasks)
    ]


def two_rows(found: LayerTable, first: str, second: str) -> list[dict[str, Any]]:
    """One row a column: its means in two matrices, the first minus the second, and that difference for each task.

    The difference is the mean over the tasks that have a value in both.
    """
    pair = found.taken([found.layers.index(name) for name in (first, second)])
    return [
        {
            "column": column,
            "first": pair.mean(column)[0],
            "second": pair.mean(column)[1],
            "difference": _known((values[:, 0] - values[:, 1]).nanmean().item()),
            "tasks": dict(zip(pair.tasks, map(_known, (values[:, 0] - values[:, 1]).tolist()), strict=True)),
        }
        for column in COLUMNS
        if (values := pair.values.get(column)) is not None
    ]


def two_as_csv(found: LayerTable, first: str, second: str) -> str:
    """One row a column and task: its values in two matrices, and the first minus the second; as CSV."""
    a, b = found.layers.index(first), found.layers.index(second)
    return csv_text(
        [
            {"column": column, "task": task, first: _known(one), second: _known(two), "difference": _known(one - two)}
            for column, table in found.values.items()
            for task, one, two in zip(found.tasks, table[:, a].tolist(), table[:, b].tolist(), strict=True)
        ]
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _about(name: str) -> dict[str, Any]:
    place = place_of(name)
    return {"matrix": name, "label": place.label, "block": place.depth, "kind": place.kind}


def as_csv(found: LayerTable) -> str:
    """``task_rows`` as CSV."""
    return csv_text(task_rows(found))
