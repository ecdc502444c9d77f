"""A sweep run: points are taken, merged, looked at and kept until none is left; then the chosen one is looked at on test."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Bench
from dcmerge.evaluation.objectives import Yardstick
from dcmerge.evaluation.ordered import Hits, OrderedImages
from dcmerge.merging.merge import Merged, merge
from dcmerge.studies.comparison import FAILURES
from dcmerge.studies.measuring import Progress, fixed_scale, measure
from dcmerge.studies.sweep.axes import SCALE, idle_parameters, of_method, point_key, settled
from dcmerge.studies.sweep.found import Found, described, percent
from dcmerge.studies.sweep.mixing import is_mix, mix_of
from dcmerge.studies.sweep.plan import Plan
from dcmerge.studies.sweep.points import COST, Point
from dcmerge.studies.sweep.race import Course, race
from dcmerge.studies.sweep.recording import Recorder
from dcmerge.studies.sweep.store import Store, Taken
from dcmerge.vectors.mix import Mix

IsCancelled = Callable[[], bool]
OnPoint = Callable[[Point, Found], None]
log = logging.getLogger(__name__)
#: Where the look at test begins, as a share of the progress.
_TEST_FROM = 0.9


def prepare(bench: Bench, plan: Plan, store: Store, cancelled: IsCancelled | None = None) -> None:
    """Before the first point, by one process: what was left half done is put back, and experts and base are looked at once."""
    swept = {one.name: 2.0 for one in plan.axes if is_mix(one.name)}
    for mix in (Mix.from_data(plan.mix), mix_of(Mix.from_data(plan.mix), swept)):
        if obstacle := plan.method.obstacle(bench.vectors.mixed(mix), bench):
            raise InputError(f"{plan.slug} {obstacle}")
    store.prepare()
    if store.references is None:
        images = OrderedImages(bench, "val", plan.limit)
        base = images.hits(bench.base_weights(), cancelled=cancelled)
        store.keep_references({"experts": images.experts(cancelled), "zero_shot": base})


def found_in(plan: Plan, store: Store) -> Found | None:
    """What is finished; None before the experts are measured."""
    references = store.references
    if references is None:
        return None
    points, tests = store.points(), tuple(store.tests)
    return Found(plan, points, references["experts"], references["zero_shot"], store.errors(), store.remaining(), tests)


def read_found(path: Path, plan: Plan) -> Found | None:
    """What a study holds so far, by somebody who only looks; None before there is anything to see."""
    if not path.is_file():
        return None
    try:
        store = Store(path, plan, reading=True)
    except InputError:  # its worker is just making it
        return None
    try:
        return found_in(plan, store)
    except InputError:
        return None
    finally:
        store.close()


class Worker:
    """One process of a sweep. ``on_point`` gets every point that it finishes, ``on_error`` those that could not be merged."""

    def __init__(
        self,
        bench: Bench,
        plan: Plan,
        store: Store,
        *,
        on_point: OnPoint | None = None,
        on_error: Callable[[int, str], None] | None = None,
        recorder: Recorder | None = None,
        progress: Progress | None = None,
        cancelled: IsCancelled | None = None,
    ) -> None:
        self.bench, self.plan, self.store = bench, plan, store
        self._on_point, self._on_error, self._recorder = on_point, on_error, recorder
        self._progress, self._cancelled = progress, cancelled
        references = store.references
        if references is None:
            raise InputError("sweep: expected a study that was prepared, got one without the experts' accuracies")
        images = OrderedImages(bench, "val", plan.limit)
        self._course = Course(images, Yardstick.of(references["experts"]), plan.accuracies, plan.early, cancelled)
        self._merged: tuple[str, Merged, float] | None = None

    def run(self) -> None:
        """Until no point is left. Raises Cancelled; the point under way is put back when the sweep goes on."""
        while (taken := self.store.take()) is not None:
            number, values = taken.number, taken.values
            found = self._found()
            self._tell(found)
            try:
                point = self._known(number, values, found) or self._look(number, values, found)
            except InputError as error:
                self._fail(taken, str(error))
            except FAILURES as error:
                log.exception("point %d failed", number)
                self._fail(taken, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            else:
                self.store.finish(taken, point, tuple(point.value(one, found.yardstick) for one in self.plan.objectives))
                if self._recorder:
                    self._recorder.point(point, found, self._course.images)
                if self._on_point:
                    self._on_point(point, found)

    def _fail(self, taken: Taken, reason: str) -> None:
        self.store.fail(taken, reason)
        if self._on_error:
            self._on_error(taken.number, reason)

    def _found(self) -> Found:
        found = found_in(self.plan, self.store)
        assert found is not None  # the constructor has seen to it
        return found

    def _tell(self, found: Found) -> None:
        if self._cancelled and self._cancelled():
            raise Cancelled
        if self._progress:
            done = len(found.points) + len(found.errors)
            best = f", best {percent(found.estimate(found.best).value)}" if found.best else ""
            share = done / max(1, done + found.remaining)
            self._progress(share * (_TEST_FROM if self.plan.test else 1.0), f"{done} of {done + found.remaining} points{best}")

    def _known(self, number: int, values: Mapping[str, Any], found: Found) -> Point | None:
        """A sampler may come back to a point: it is not looked at again."""
        key = self._key(values)
        same = next((point for point in found.points if self._key(point.values) == key), None)
        if same is None:
            return None
        return replace(same, number=number, seconds=0.0)

    def _key(self, values: Mapping[str, Any]) -> str:
        return point_key(self.plan.method, self.plan.parameters, values)

    def _look(self, number: int, values: Mapping[str, Any], found: Found) -> Point:
        began = time.perf_counter()
        parameters = settled(self.plan.method, {**self.plan.parameters, **of_method(values)})
        mix = mix_of(Mix.from_data(self.plan.mix), values)
        merged, seconds = self._merge(parameters, mix)
        fixed = fixed_scale(self.plan.slug)
        given = values.get(SCALE, fixed.value if fixed else self.plan.scale)
        arms, stopped = race(
            self._course,
            lambda scale: merged.model(self.bench, scale),
            [] if given is None else [given],
            self._start(parameters, found),
            self._rivals(found, seconds),
        )
        idle = idle_parameters(self.plan.method, parameters)
        swept = {name: value for name, value in values.items() if name not in idle}
        return Point(number, swept, parameters, arms, stopped, seconds, time.perf_counter() - began, mix.to_data())

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

    def _start(self, parameters: Mapping[str, Any], found: Found) -> float | None:
        """α to begin with: that of the finished point which shares most values, the latest of these."""
        alike = [(sum(p.parameters.get(n) == v for n, v in parameters.items()), p.number, p.scale) for p in found.points]
        return max(alike)[2] if alike else None

    def _rivals(self, found: Found, seconds: float) -> list[Hits]:
        """The points that may stop this one: those of the front, and where cost counts only those that cost no more."""
        return [point.hits for point in found.front if COST not in self.plan.objectives or point.merge_seconds <= seconds]


def look_at_test(
    bench: Bench,
    plan: Plan,
    store: Store,
    *,
    recorder: Recorder | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> None:
    """Look at the chosen point on test, once: not again where it was looked at before."""
    found = found_in(plan, store)
    best = found.best if found else None
    if found is None or best is None or not plan.test or any(test["number"] == best.number for test in store.tests):
        return
    tell = (lambda share, text: progress(_TEST_FROM + (1 - _TEST_FROM) * share, text)) if progress else None
    mix, on = Mix.from_data(best.mix), {"limit": plan.test_limit, "progress": tell, "cancelled": cancelled}
    row = measure(bench, plan.slug, best.parameters, scale=best.scale, mix=mix, **on)
    store.keep_test({"number": best.number, "values": described(best), "row": row})
    if recorder:
        recorder.test(row, found)


def sweep(
    bench: Bench,
    plan: Plan,
    store: Store,
    *,
    on_point: OnPoint | None = None,
    recorder: Recorder | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> Found:
    """Every point that is not finished, then the look at test; what an earlier run left is taken over."""
    if progress:
        progress(0.0, "zero-shot and experts")
    prepare(bench, plan, store, cancelled)
    how: dict[str, Any] = {"recorder": recorder, "progress": progress, "cancelled": cancelled}
    Worker(bench, plan, store, on_point=on_point, **how).run()
    look_at_test(bench, plan, store, **how)
    found = found_in(plan, store)
    assert found is not None
    return found
