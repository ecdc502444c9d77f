"""A point looked at: merged, and raced against the points that may stop it. Here, or on a machine that only looks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.evaluation.objectives import Yardstick
from dcmerge.evaluation.ordered import Hits, OrderedImages
from dcmerge.merging.merge import Merged, merge
from dcmerge.studies.elsewhere import Opener, opened
from dcmerge.studies.measuring import fixed_scale
from dcmerge.studies.rows import FAILURES
from dcmerge.studies.sweep.axes import SCALE, idle_parameters, of_method, point_key, settled
from dcmerge.studies.sweep.found import Found
from dcmerge.studies.sweep.mixing import mix_of
from dcmerge.studies.sweep.plan import Plan
from dcmerge.studies.sweep.points import COST, Point
from dcmerge.studies.sweep.race import Course, race
from dcmerge.vectors.mix import Mix

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Asked:
    """A point to look at. ``start``: α to begin with; ``rivals``: the points that may stop it, as hits and merge seconds."""

    number: int
    values: Mapping[str, Any]
    parameters: Mapping[str, Any]
    start: float | None
    rivals: tuple[tuple[Hits, float], ...] = field(default=(), repr=False)


def asked(plan: Plan, number: int, values: Mapping[str, Any], found: Found) -> Asked:
    """What whoever looks at it needs to know of the points so far."""
    parameters = settled(plan.method, {**plan.parameters, **of_method(values)})
    alike = [(sum(p.parameters.get(n) == v for n, v in parameters.items()), p.number, p.scale) for p in found.points]
    rivals = tuple((point.hits, point.merge_seconds) for point in found.front)
    return Asked(number, values, parameters, max(alike)[2] if alike else None, rivals)


def known_point(plan: Plan, number: int, values: Mapping[str, Any], found: Found) -> Point | None:
    """A sampler may come back to a point: it is not looked at again."""

    def key(values: Mapping[str, Any]) -> str:
        return point_key(plan.method, plan.parameters, values)

    same = next((point for point in found.points if key(point.values) == key(values)), None)
    return same and replace(same, number=number, seconds=0.0)


class Looker:
    """Looks at points of one plan on one bench; ``experts``: their hits, against which all points are normalised."""

    def __init__(self, bench: Bench, plan: Plan, experts: Hits, cancelled: Callable[[], bool] | None = None) -> None:
        self.bench, self.plan, self._cancelled = bench, plan, cancelled
        images = OrderedImages(bench, "val", plan.limit)
        self._course = Course(images, Yardstick.of(experts), plan.accuracies, plan.early, cancelled)
        self._merged: tuple[str, Merged, float] | None = None

    def look(self, one: Asked) -> Point | str:
        """The point, or why it could not be merged. Raises Cancelled."""
        try:
            return self._look(one)
        except InputError as error:
            return str(error)
        except FAILURES as error:
            log.exception("point %d failed", one.number)
            return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"

    def _look(self, one: Asked) -> Point:
        began = time.perf_counter()
        mix = mix_of(Mix.from_data(self.plan.mix), one.values)
        merged, seconds = self._merge(one.parameters, mix)
        fixed = fixed_scale(self.plan.slug)
        given = one.values.get(SCALE, fixed.value if fixed else self.plan.scale)
        arms, stopped = race(
            self._course,
            lambda scale: merged.model(self.bench, scale),
            [] if given is None else [given],
            one.start,
            # Where cost counts, only a point that costs no more may stop it.
            [hits for hits, cost in one.rivals if COST not in self.plan.objectives or cost <= seconds],
        )
        idle = idle_parameters(self.plan.method, one.parameters)
        swept = {name: value for name, value in one.values.items() if name not in idle}
        took = time.perf_counter() - began
        return Point(one.number, swept, one.parameters, arms, stopped, seconds, took, mix.to_data())

    def _merge(self, parameters: Mapping[str, Any], mix: Mix) -> tuple[Merged, float]:
        """The merge and its seconds, from the last point where that was the same. Where cost counts, the process's first merge is
        made twice: it computes what all share.
        """
        key, vectors = str((parameters, mix)), self.bench.vectors.mixed(mix)
        if self._merged is None or self._merged[0] != key:
            first = self._merged is None
            for _ in range(2 if first and COST in self.plan.objectives else 1):
                began = time.perf_counter()
                merged = merge(vectors, self.plan.slug, bench=self.bench, cancelled=self._cancelled, **parameters)
                self._merged = key, merged, time.perf_counter() - began
        assert self._merged is not None
        return self._merged[1], self._merged[2]


@dataclass(frozen=True, eq=False)
class LookElsewhere:
    """The same on another machine, which opens the models for itself and keeps them for its next points."""

    opener: Opener
    plan: Plan
    experts: Hits = field(repr=False)

    def __call__(self, one: Asked) -> Point | str:
        def looker() -> Looker:
            return Looker(opened(self.opener), self.plan, self.experts)

        return opened(self.opener).memo.get(("sweep", self.plan.key), looker).look(one)
