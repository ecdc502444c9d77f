"""A sweep run: points are taken, merged, looked at and kept until none is left; then the chosen one is looked at on test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Bench
from dcmerge.evaluation.ordered import OrderedImages
from dcmerge.runtime.engines import Engine, Here
from dcmerge.studies.elsewhere import Opener
from dcmerge.studies.measuring import Progress, measure
from dcmerge.studies.sweep.found import Found, described, percent
from dcmerge.studies.sweep.looking import Asked, LookElsewhere, Looker, asked, known_point
from dcmerge.studies.sweep.plan import Plan
from dcmerge.studies.sweep.points import Point
from dcmerge.studies.sweep.recording import Recorder
from dcmerge.studies.sweep.store import Store, Taken
from dcmerge.vectors.mix import Mix

IsCancelled = Callable[[], bool]
OnPoint = Callable[[Point, Found], None]
#: Where the look at test begins, as a share of the progress.
_TEST_FROM = 0.9


def prepare(bench: Bench, plan: Plan, store: Store, cancelled: IsCancelled | None = None) -> None:
    """Before the first point, by one process: what was left half done is put back, and experts and base are looked at once."""
    arrange(bench, plan, store)
    measure_references(bench, plan, store, cancelled)


def arrange(bench: Bench, plan: Plan, store: Store) -> None:
    """The quick part of ``prepare``, after which other processes may open the study."""
    plan.check(bench.vectors, bench)
    store.prepare()


def measure_references(bench: Bench, plan: Plan, store: Store, cancelled: IsCancelled | None = None) -> None:
    """The rest: who takes points waits for it."""
    if store.references is None:
        images = OrderedImages(bench, "val", plan.limit)
        base = images.hits(bench.base_weights(), cancelled=cancelled)
        store.keep_references({"experts": images.experts(cancelled), "zero_shot": base})


def found_in(plan: Plan, store: Store, *, again: bool = True) -> Found | None:
    """What is finished; None before the experts are measured. ``again``: as of ``Store.contents``."""
    references = store.references
    if references is None:
        return None
    now, tests = store.contents(again=again), tuple(store.tests)
    return Found(plan, now.points, references["experts"], references["zero_shot"], now.errors, now.remaining, tests)


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
    """One process of a sweep. ``on_point`` gets every point that it finishes, ``on_error`` those that could not be merged.

    With an ``engine`` of other machines, ``opener`` opens the models there; the study stays with this process.
    """

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
        engine: Engine | None = None,
        opener: Opener | None = None,
    ) -> None:
        self.bench, self.plan, self.store = bench, plan, store
        self._on_point, self._on_error, self._recorder = on_point, on_error, recorder
        self._progress, self._cancelled = progress, cancelled
        references = store.references
        if references is None:
            raise InputError("sweep: expected a study that was prepared, got one without the experts' accuracies")
        self._images = OrderedImages(bench, "val", plan.limit)
        self._engine, self._under_way = engine or Here(), dict[int, tuple[Taken, Found]]()
        if opener is None:
            self._look = Looker(bench, plan, references["experts"], cancelled).look
        else:
            self._look = LookElsewhere(opener, plan, references["experts"])

    def run(self) -> None:
        """Until no point is left. Raises Cancelled; points under way are put back when the sweep goes on."""
        for one, outcome in self._engine.map(self._look, self._asked(), self._cancelled):
            self._keep(*self._under_way.pop(one.number), outcome)

    def catch_up(self, is_told: Callable[[int], bool] = lambda number: True) -> None:
        """Tell of the points that a process finished and was killed before it could: no other may be at work meanwhile.

        Those without a run are recorded, and those of which ``is_told`` denies the number go to ``on_point`` or ``on_error``.
        """
        found = self._found()
        if recorder := self._recorder:
            for point in recorder.missing(found.points):
                recorder.point(point, found, self._images)
        for point in found.points:
            if self._on_point and not is_told(point.number):
                self._on_point(point, found)
        for number, reason in found.errors.items():
            if self._on_error and not is_told(number):
                self._on_error(number, reason)

    def _asked(self) -> Iterator[Asked]:
        """The points as they are taken from the study; those that are known already are kept at once."""
        while (taken := self.store.take()) is not None:
            found = self._found()
            self._tell(found)
            if known := known_point(self.plan, taken.number, taken.values, found):
                self._keep(taken, found, known)
            else:
                self._under_way[taken.number] = taken, found
                yield asked(self.plan, taken.number, taken.values, found)

    def _keep(self, taken: Taken, found: Found, outcome: Point | str) -> None:
        """``found``: what there was when the point was taken."""
        if isinstance(outcome, str):
            self.store.fail(taken, outcome)
            if self._on_error:
                self._on_error(taken.number, outcome)
            return
        self.store.finish(taken, outcome, tuple(outcome.value(one, found.yardstick) for one in self.plan.objectives))
        if self._recorder:
            self._recorder.point(outcome, found, self._images)
        if self._on_point:
            self._on_point(outcome, found)

    def _found(self) -> Found:
        found = found_in(self.plan, self.store, again=False)
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
    engine: Engine | None = None,
    opener: Opener | None = None,
) -> Found:
    """Every point that is not finished, then the look at test; what an earlier run left is taken over.

    ``engine`` and ``opener`` as of ``Worker``.
    """
    if progress:
        progress(0.0, "zero-shot and experts")
    prepare(bench, plan, store, cancelled)
    how: dict[str, Any] = {"recorder": recorder, "progress": progress, "cancelled": cancelled}
    worker = Worker(bench, plan, store, on_point=on_point, engine=engine, opener=opener, **how)
    worker.catch_up()
    worker.run()
    look_at_test(bench, plan, store, **how)
    found = found_in(plan, store)
    assert found is not None
    return found
