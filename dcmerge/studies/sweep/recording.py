"""Points of a sweep, and its look at test, as runs that stay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dcmerge.evaluation import Bench, Scale
from dcmerge.evaluation.ordered import OrderedImages
from dcmerge.runs import EVALUATION, POINT, RunStore, images_of
from dcmerge.runs.recording import keep, measured_run
from dcmerge.studies.measuring import Row
from dcmerge.studies.sweep.found import Found
from dcmerge.studies.sweep.points import Point
from dcmerge.vectors.mix import Mix


@dataclass(frozen=True, eq=False)
class Recorder:
    """Writes into a store of runs (the user's own by default), under the sweep's id. ``name``: of the set."""

    bench: Bench
    name: str
    group: str
    store: RunStore | None = None

    def point(self, point: Point, found: Found, images: OrderedImages) -> str:
        """A point that saw all images is comparable with every other run on them; one that stopped only with its like.

        Why it could not be kept; empty where it was.
        """
        evaluation = replace(found.evaluation(point), split_rules=self.bench.split_rules)
        if point.images >= found.images:
            ordered = images.in_order_of_split(point.hits)
            tasks = {name: replace(task, hits=ordered[name]) for name, task in evaluation.tasks.items()}
            evaluation = replace(evaluation, tasks=tasks, limit=images.limit)
        count = len(point.arms)
        origin = f"validation split, {point.images} images a task, the best of {count} tried" if count > 1 else "given"
        return self._keep(POINT, point, found, origin, evaluation, seconds=point.seconds)

    def test(self, row: Row, found: Found) -> str:
        """The one look of the chosen point at test."""
        best = found.best
        assert best is not None and row.seconds is not None
        return self._keep(EVALUATION, best, found, found.origin, row.measured, seconds=row.seconds.evaluation, tried=found.tried)

    def _keep(self, kind: str, point: Point, found: Found, origin: str, evaluation: Any, **more: Any) -> str:
        scale = Scale(point.scale, origin)
        run = measured_run(
            self.bench,
            self.name,
            kind,
            found.plan.slug,
            evaluation,
            values=point.parameters,
            scale=scale,
            mix=Mix.from_data(point.mix),
            group=self.group,
            **more,
        )
        if point.stopped and kind == POINT:
            whole = images_of(self.bench, evaluation.split, found.plan.limit)
            run = replace(run, images=f"{whole}, the first {point.images}")
        return keep([run], self.store)[1]
