"""Points of a sweep, and its look at test, as runs that stay."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dcmerge.errors import InputError
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

    def missing(self, points: Iterable[Point]) -> list[Point]:
        """The points that have no run yet; none where the store cannot be read."""
        try:
            runs = (self.store or RunStore()).find(kind=POINT, group=self.group, limit=None)
        except InputError:
            return []
        known = Counter(_settings(run.values, run.alpha, (run.recipe or {}).get("mix")) for run in runs)
        found = []
        for point in points:
            own = _settings(point.parameters, point.scale, point.mix)
            if known[own]:
                known[own] -= 1  # equal settings may be several points
            else:
                found.append(point)
        return found

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


def _settings(parameters: Mapping[str, Any], scale: float | None, mix: Any) -> str:
    """What tells a point from another, as the store keeps it."""
    return json.dumps([dict(parameters), scale, mix or {}], sort_keys=True, default=str)
