"""Methods side by side: each measured on the same images, beside zero-shot, experts, averaging."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Bench, paired_difference
from dcmerge.methods import method
from dcmerge.studies.measuring import IsCancelled, Progress, Row, Share, measure, references

#: The method that all others are compared to.
AVERAGE = "average"
#: What a method may fail with besides bad input without taking the others along: no memory, an SVD that does not converge.
FAILURES = (MemoryError, RuntimeError, ArithmeticError)

log = logging.getLogger(__name__)


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
    tell = Share(progress, "")
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
