"""Methods side by side: merge, choose α on validation, report once on test, beside zero-shot, experts, averaging."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dcmerge.checkpoints.schemes import NONE
from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import (
    EXPERTS,
    ZERO_SHOT,
    Bench,
    Difference,
    Drift,
    Evaluation,
    Scale,
    choose_scale,
    paired_difference,
)
from dcmerge.merging.merge import merge
from dcmerge.merging.recipe import check_scale
from dcmerge.methods import method
from dcmerge.runtime.peak import PeakMemory
from dcmerge.studies.diagnosis import DirSim, diagnose

Progress = Callable[[float, str], None]
IsCancelled = Callable[[], bool]

#: The method that all others are compared to.
AVERAGE = "average"
#: What a method may fail with besides bad input without taking the others along: no memory, an SVD that does not converge.
FAILURES = (MemoryError, RuntimeError, ArithmeticError)
TITLES = {ZERO_SHOT: "Zero-shot (the base)", EXPERTS: "Experts, each on its own task"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seconds:
    """Wall-clock seconds of the three parts of a row. ``scale``: the search for α on validation.

    Methods share factors and bases, so ``merge`` is long for the first one that needs them and short for the others.
    """

    merge: float = 0.0
    scale: float = 0.0
    evaluation: float = 0.0


@dataclass(frozen=True, eq=False)
class Row:
    """One method, or a reference ("zero-shot", "experts"). A method that failed has an ``error`` and no figures.

    ``peak_bytes``: how much the process grew at most while merging (see ``PeakMemory``). ``dirsim`` and ``drift`` only where
    they were asked for. ``curve``: the loss of every step, of methods that train.
    """

    name: str
    title: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scale: Scale | None = None
    evaluation: Evaluation | None = None
    seconds: Seconds | None = None
    difference: Difference | None = None
    error: str | None = None
    peak_bytes: int | None = None
    dirsim: DirSim | None = None
    drift: Drift | None = None
    curve: tuple[float, ...] = ()
    #: How attention's q, k and v were merged, "split" or "fused"; None where there is nothing to choose.
    qkv: str | None = None

    @property
    def is_reference(self) -> bool:
        return self.name in TITLES

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; accuracies are shares, not percent."""
        measured = self.evaluation
        worst = measured.worst if measured else None
        return {
            "name": self.name,
            "title": self.title,
            "reference": self.is_reference,
            "error": self.error,
            "parameters": dict(self.parameters),
            "scale": asdict(self.scale) if self.scale else None,
            "accuracy": measured.to_dict() if measured else None,
            "worst": {"task": worst.task, "accuracy": worst.accuracy} if worst else None,
            "difference_to_average": asdict(self.difference) if self.difference else None,
            "seconds": asdict(self.seconds) if self.seconds else None,
            "peak_bytes": self.peak_bytes,
            "dirsim": asdict(self.dirsim) if self.dirsim else None,
            "drift": self.drift.to_dict() if self.drift else None,
            "curve": list(self.curve),
            "qkv": self.qkv,
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Rows in order: zero-shot, plain averaging, the other methods as asked for, experts. Limits are images a task."""

    split: str
    limit: int | None
    val_limit: int | None
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        """The row of a method or reference; KeyError if there is none."""
        return {row.name: row for row in self.rows}[name]

    @property
    def measured_on(self) -> str:
        """ "test split, 1000 images a task" in words."""
        return self.row(ZERO_SHOT).evaluation.measured_on

    def to_dict(self) -> dict[str, Any]:
        plain = {
            "split": self.split,
            "limit": self.limit,
            "val_limit": self.val_limit,
            "measured_on": self.measured_on,
            "split_rules": dict(self.row(ZERO_SHOT).evaluation.split_rules),
        }
        return {**plain, "rows": [row.to_dict() for row in self.rows]}


def measure(
    bench: Bench,
    slug: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    scale: float | None = None,
    split: str = "test",
    limit: int | None = None,
    val_limit: int | None = None,
    diagnosed: bool = False,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> Row:
    """Merge with one method, choose α on validation unless ``scale`` is given, and evaluate once on the split.

    ``diagnosed`` adds DirSim and feature drift, outside the row's seconds.

    Raises InputError for a bad method, parameter or scale, Cancelled when ``cancelled()`` turns true.
    """
    chosen = method(slug)
    values = chosen.check(parameters or {})
    origin = None if scale is None else Scale(check_scale(scale), "given")
    tell = _Share(progress, chosen.title)
    started = time.perf_counter()
    with PeakMemory() as peak:
        merged = merge(bench.vectors, slug, bench=bench, progress=tell.part(0.0, 0.2), cancelled=cancelled, **values)
    merged_at = time.perf_counter()
    found = (
        origin
        or fixed_scale(slug)
        or choose_scale(bench, merged.deltas, limit=val_limit, progress=tell.part(0.2, 0.8), cancelled=cancelled)
    )
    scaled_at = time.perf_counter()
    model = merged.model(bench, found.value)
    evaluation = bench.evaluate(model, slug, split=split, limit=limit, progress=tell.part(0.8, 1.0), cancelled=cancelled)
    durations = Seconds(merged_at - started, scaled_at - merged_at, time.perf_counter() - scaled_at)
    why = diagnose(bench, merged.deltas, model, split=split, limit=limit, cancelled=cancelled) if diagnosed else (None, None)
    return Row(
        slug,
        chosen.title,
        values,
        found,
        evaluation,
        durations,
        None,
        None,
        peak.growth,
        *why,
        merged.curve,
        None if bench.vectors.qkv == NONE else bench.vectors.qkv,
    )


def fixed_scale(slug: str) -> Scale | None:
    """The scale of a method without a free one. With α chosen, averaging would be task arithmetic under another name."""
    chosen = method(slug)
    return Scale(chosen.usual_scale, f"fixed: {chosen.fixed_scale}") if chosen.fixed_scale else None


def references(
    bench: Bench, *, split: str = "test", limit: int | None = None, cancelled: IsCancelled | None = None
) -> tuple[Row, Row]:
    """The zero-shot row and the experts' row, which the bench remembers."""
    experts = bench.experts(split=split, limit=limit, cancelled=cancelled)
    zero_shot = bench.zero_shot(split=split, limit=limit)
    return Row(ZERO_SHOT, TITLES[ZERO_SHOT], evaluation=zero_shot), Row(EXPERTS, TITLES[EXPERTS], evaluation=experts)


def compare(
    bench: Bench,
    slugs: Sequence[str],
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    split: str = "test",
    limit: int | None = None,
    val_limit: int | None = None,
    diagnosed: bool = False,
    known: Mapping[str, Row] | None = None,
    on_row: Callable[[Row], None] | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> Comparison:
    """Every method on the same images, plain averaging first (always, as what the others are compared to).

    ``parameters`` maps slugs to what differs from the defaults; ``on_row`` gets each row as it is ready. Rows of an earlier
    run on the same images, ``known`` by name, are taken over and not computed again; ``on_row`` does not get those. A method
    that fails keeps its row with the reason, the others go on. Raises InputError for an unknown slug before anything is
    computed and Cancelled when ``cancelled()`` turns true.
    """
    slugs = list(dict.fromkeys([AVERAGE, *slugs]))
    for slug in slugs:
        method(slug)
    ready, known = on_row or (lambda row: None), known or {}
    tell = _Share(progress, "")
    done = sum(slug in known for slug in slugs)
    tell.part(0.0, 1.0)(_share(done, len(slugs)) if done else 0.0, "zero-shot and experts")
    zero_shot, experts = _references(bench, known, split=split, limit=limit, cancelled=cancelled)
    if done < len(slugs):
        # The validation split's experts too, before any clock runs: no method's α search pays for them.
        bench.experts(split="val", limit=val_limit, cancelled=cancelled)
    rows = [zero_shot]
    if ZERO_SHOT not in known:
        ready(zero_shot)
    measured_on = {"split": split, "limit": limit, "val_limit": val_limit, "diagnosed": diagnosed}
    for slug in slugs:
        row = known.get(slug)
        if row is None:
            part = tell.part(_share(done, len(slugs)), _share(done + 1, len(slugs)))
            row = _row(bench, slug, (parameters or {}).get(slug), part, cancelled, **measured_on)
            done += 1
        average = (row if slug == AVERAGE else rows[1]).evaluation
        if row.evaluation and average and slug != AVERAGE and row.difference is None:
            row = replace(row, difference=paired_difference(row.evaluation, average))
        rows.append(row)
        if row is not known.get(slug):
            ready(row)
    if EXPERTS not in known:
        ready(experts)
    return Comparison(split, limit, val_limit, (*rows, experts))


def _share(done: int, methods: int) -> float:
    """The share of a comparison that is behind when so many methods are done; the references take the first tenth."""
    return 0.1 + 0.9 * done / methods


def _references(
    bench: Bench, known: Mapping[str, Row], *, split: str, limit: int | None, cancelled: IsCancelled | None
) -> tuple[Row, Row]:
    """``references``, as far as they are not known; the bench learns the known experts' row, with which it normalises."""
    if EXPERTS in known:
        bench.remember(known[EXPERTS].evaluation)
    if ZERO_SHOT in known and EXPERTS in known:
        return known[ZERO_SHOT], known[EXPERTS]
    zero_shot, experts = references(bench, split=split, limit=limit, cancelled=cancelled)
    return known.get(ZERO_SHOT, zero_shot), known.get(EXPERTS, experts)


def _row(
    bench: Bench,
    slug: str,
    parameters: Mapping[str, Any] | None,
    progress: Progress,
    cancelled: IsCancelled | None,
    **measured_on: Any,
) -> Row:
    if cancelled and cancelled():
        raise Cancelled
    try:
        return measure(bench, slug, parameters, progress=progress, cancelled=cancelled, **measured_on)
    except InputError as error:
        return Row(slug, method(slug).title, dict(parameters or {}), error=str(error))
    except FAILURES as error:
        log.exception("%s failed", slug)
        reason = (str(error).splitlines() or [""])[0]
        return Row(slug, method(slug).title, dict(parameters or {}), error=f"{type(error).__name__}: {reason}")


class _Share:
    """Parts of one progress bar, which never goes back."""

    def __init__(self, progress: Progress | None, title: str) -> None:
        self._progress, self._title, self._reached = progress, title, 0.0

    def part(self, start: float, end: float) -> Progress:
        """The progress of one part, between ``start`` and ``end`` of the whole."""

        def tell(share: float, text: str) -> None:
            self._reached = max(self._reached, start + (end - start) * share)
            if self._progress:
                self._progress(self._reached, f"{self._title}: {text}" if self._title else text)

        return tell
