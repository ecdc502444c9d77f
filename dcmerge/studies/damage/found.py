"""What a damage map found: for every part and task the change of accuracy, with its interval from paired images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from dcmerge.evaluation.accuracy import Z_95, Difference, interval_of_mean
from dcmerge.evaluation.ordered import Hits

EXPERT, BASE, WITHOUT = "expert", "base", "without"
#: What a part is changed to, in words that follow "this matrix is".
CHANGES = {
    EXPERT: "put back to the task's own expert: what a gain here shows was lost in the merge",
    BASE: "put back to the base: what a loss here shows is brought by the merge",
    WITHOUT: "merged without the task's expert: what a loss here shows the task owes to its own expert",
}


@dataclass(frozen=True)
class Change(Difference):
    """Accuracy after a change minus before, a share, on so many images; with its 95 % interval."""

    images: int


def paired_change(after: Tensor, before: Tensor) -> Change:
    """The change of accuracy between two models on the same images (bool (n,) each).

    The interval is Agresti and Min's for matched proportions (Statistics in Medicine 24, 2005): Wald's, after half an image is
    added to each of the four cells. It has a width where no image changes sides too.
    """
    n, gained, lost = len(after), int((after & ~before).sum()), int((before & ~after).sum())
    p, q = (gained + 0.5) / (n + 2), (lost + 0.5) / (n + 2)
    half = Z_95 * math.sqrt(max(0.0, p + q - (p - q) ** 2) / (n + 2))
    return Change((gained - lost) / max(n, 1), p - q - half, p - q + half, n)


@dataclass(frozen=True)
class Repaired:
    """The model in which the ``parts`` that gain most are each task's own expert's.

    ``mean``: accuracy, mean over tasks, on the images that did not choose the parts. ``extra``: numbers kept beside the merged
    model, for all tasks together; as a share of the model in ``share``.
    """

    parts: tuple[str, ...]
    mean: float
    extra: int
    share: float


@dataclass(frozen=True, eq=False)
class DamageMap:
    """Hits (bool (n,) by task, in an order of which every beginning is a fair sample) of the merge, and after each change.

    ``changed``: change -> part -> hits. ``sizes``: numbers of a part. ``repaired``: the best parts repaired for every task.
    """

    units: tuple[str, ...]
    merged: Hits = field(repr=False)
    experts: Hits = field(repr=False)
    zero_shot: Hits = field(repr=False)
    changed: Mapping[str, Mapping[str, Hits]] = field(repr=False)
    sizes: Mapping[str, int] = field(default_factory=dict, repr=False)
    repaired: tuple[Repaired, ...] = ()
    scale: float = 1.0
    scale_origin: str = ""
    split: str = "val"

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.merged)

    @cached_property
    def images(self) -> int:
        """Images of the largest task."""
        return max(map(len, self.merged.values()))

    def cell(self, change: str, unit: str, task: str, images: int | None = None) -> Change:
        """One cell, on the first ``images`` of the task (default: all)."""
        after, before = self.changed[change][unit][task], self.merged[task]
        return paired_change(after[:images], before[:images])

    def over_tasks(self, change: str, unit: str, images: int | None = None) -> Change:
        """Mean change over the tasks."""
        cells = [self.cell(change, unit, task, images) for task in self.tasks]
        low, high = interval_of_mean([(cell.value, cell.low, cell.high) for cell in cells])
        return Change(sum(cell.value for cell in cells) / len(cells), low, high, sum(cell.images for cell in cells))

    def singles(self, change: str, task: str, images: int | None = None) -> float:
        """The sum of the single changes of all parts on a task: what they would make if they did not interact."""
        return sum(self.cell(change, unit, task, images).value for unit in self.units)

    def joint(self, change: str, task: str, images: int | None = None) -> Change | None:
        """All parts changed at once: the task's expert itself, or the base; None where that was not measured."""
        ends = {EXPERT: self.experts, BASE: self.zero_shot}
        return paired_change(ends[change][task][:images], self.merged[task][:images]) if change in ends else None

    def ranked(self, change: str = EXPERT, images: int | None = None) -> list[str]:
        """The parts, those first whose change gains most over all tasks."""
        return sorted(self.units, key=lambda unit: -self.over_tasks(change, unit, images).value)
