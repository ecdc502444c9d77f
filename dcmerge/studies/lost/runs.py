"""Two runs of the store on the same images: which images one of them gets right and the other wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, Difference, Split
from dcmerge.runs import Run, images_of, paired


@dataclass(frozen=True, eq=False)
class TaskApart:
    """One task: which of n images the first run gets right and the second, bool (n,) each."""

    first: Tensor
    second: Tensor

    @property
    def only_first(self) -> list[int]:
        return (self.first & ~self.second).nonzero()[:, 0].tolist()

    @property
    def only_second(self) -> list[int]:
        return (self.second & ~self.first).nonzero()[:, 0].tolist()

    @property
    def both(self) -> int:
        return int((self.first & self.second).sum())

    @property
    def neither(self) -> int:
        return int((~self.first & ~self.second).sum())


@dataclass(frozen=True, eq=False)
class RunsApart:
    """All tasks, and the difference of the mean accuracies, second minus first, with its interval."""

    first: Run
    second: Run
    tasks: Mapping[str, TaskApart] = field(repr=False)
    difference: Difference


def runs_apart(first: Run, second: Run) -> RunsApart:
    """Raises InputError where the two were not measured on the same images."""
    difference = paired(second, first)
    hits = first.hits, second.hits
    return RunsApart(first, second, {task: TaskApart(own, hits[1][task]) for task, own in hits[0].items()}, difference)


def images_of_run(bench: Bench, run: Run) -> dict[str, Split]:
    """The images that a run was measured on, by task, in the order of its hits; InputError where this bench has others."""
    measured = run.evaluation
    tasks = list(measured.tasks)
    if set(tasks) <= set(bench.tasks) and all(measured.split in bench.tasks[task].splits for task in tasks):
        own = bench if tasks == list(bench.tasks) else bench.select(tasks)
        if images_of(own, measured.split, measured.limit, measured.seed) == run.images:
            return {task: own.split(task, measured.split, measured.limit, measured.seed) for task in tasks}
    raise InputError(f"runs: expected one on images of this set, got {run.id} on others ({measured.measured_on})")
