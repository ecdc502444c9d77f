"""Methods side by side: merge, choose α on validation, report once on test, beside zero-shot, experts, averaging."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dcmerge.diagnosis import DirSim, diagnose
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
from dcmerge.methods import method
from dcmerge.peak import PeakMemory
from dcmerge.recipe import check_scale, merge

Progress = Callable[[float, str], None]
IsCancelled = Callable[[], bool]

#: The method that all others are compared to.
AVERAGE = "average"
TITLES = {ZERO_SHOT: "Zero-shot (the base)", EXPERTS: "Experts, each on its own task"}


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
    they were asked for.
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

    @property
    def is_reference(self) -> bool:
        return self.name in TITLES

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; accuracies are shares, not percent."""
        measured = self.evaluation
        worst = measured.worst if measured else None
        return {
            "name": self.name, "title": self.title, "reference": self.is_reference, "error": self.error,
            "parameters": dict(self.parameters), "scale": asdict(self.scale) if self.scale else None,
            "accuracy": measured.to_dict() if measured else None,
            "worst": {"task": worst.task, "accuracy": worst.accuracy} if worst else None,
            "difference_to_average": asdict(self.difference) if self.difference else None,
            "seconds": asdict(self.seconds) if self.seconds else None, "peak_bytes": self.peak_bytes,
            "dirsim": asdict(self.dirsim) if self.dirsim else None, "drift": self.drift.to_dict() if self.drift else None,
        }  # fmt: skip


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
        """"test split, 1000 images a task" in words."""
        return self.row(ZERO_SHOT).evaluation.measured_on

    def to_dict(self) -> dict[str, Any]:
        plain = {"split": self.split, "limit": self.limit, "val_limit": self.val_limit, "measured_on": self.measured_on}
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
    found = origin or fixed_scale(slug) or choose_scale(
        bench, merged.deltas, limit=val_limit, progress=tell.part(0.2, 0.8), cancelled=cancelled
    )
    scaled_at = time.perf_counter()
    model = merged.model(bench, found.value)
    evaluation = bench.evaluate(
        model, slug, split=split, limit=limit, progress=tell.part(0.8, 1.0), cancelled=cancelled
    )
    durations = Seconds(merged_at - started, scaled_at - merged_at, time.perf_counter() - scaled_at)
    why = diagnose(bench, merged.deltas, model, split=split, limit=limit, cancelled=cancelled) if diagnosed else (None, None)
    return Row(slug, chosen.title, values, found, evaluation, durations, None, None, peak.growth, *why)


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
    finished: Sequence[Row] = (),
    on_row: Callable[[Row], None] | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> Comparison:
    """Every method on the same images, plain averaging first (always, as what the others are compared to).

    ``parameters`` maps slugs to what differs from the defaults; ``on_row`` gets each row as it is ready. ``finished``: rows of
    an earlier, interrupted run of the very same comparison, which are taken over instead of measured again. A method that
    fails with InputError keeps its row with the reason, the others go on. Raises InputError for an unknown slug before
    anything is computed and Cancelled when ``cancelled()`` turns true.
    """
    slugs = list(dict.fromkeys([AVERAGE, *slugs]))
    for slug in slugs:
        method(slug)
    ready = on_row or (lambda row: None)
    tell = _Share(progress, "")
    tell.part(0.0, 0.0)(0.0, "zero-shot and experts")
    zero_shot, experts = references(bench, split=split, limit=limit, cancelled=cancelled)
    # The validation split's experts too, before any clock runs: no method's α search pays for them.
    bench.experts(split="val", limit=val_limit, cancelled=cancelled)
    rows = [zero_shot]
    ready(zero_shot)
    kept = {row.name: row for row in finished if row.evaluation}
    measured_on = {"split": split, "limit": limit, "val_limit": val_limit, "diagnosed": diagnosed}
    for done, slug in enumerate(slugs):
        part = tell.part(0.1 + 0.9 * done / len(slugs), 0.1 + 0.9 * (done + 1) / len(slugs))
        row = kept.get(slug) or _row(bench, slug, (parameters or {}).get(slug), part, cancelled, **measured_on)
        average = (row if slug == AVERAGE else rows[1]).evaluation
        if row.evaluation and average and slug != AVERAGE:
            row = replace(row, difference=paired_difference(row.evaluation, average))
        rows.append(row)
        ready(row)
    ready(experts)
    return Comparison(split, limit, val_limit, (*rows, experts))


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
