"""Methods side by side: each measured on the same images, beside zero-shot, experts, averaging."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Bench, paired_difference, weak_experts
from dcmerge.methods import method
from dcmerge.runtime.engines import Engine
from dcmerge.studies.elsewhere import Opener
from dcmerge.studies.measuring import PAPERS, TASK_ARITHMETIC, IsCancelled, Progress, Row, Share, references, slug_of
from dcmerge.studies.rows import RowMaker, measured_rows
from dcmerge.vectors.mix import Mix

#: The method that all others are compared to.
AVERAGE = "average"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Rows in order: zero-shot, plain averaging, Task Arithmetic where it was asked for, the other methods, experts.

    Limits are images a task.
    """

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
        return self.row(ZERO_SHOT).measured.measured_on

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong with the experts themselves, as far as both references are there."""
        measured = {row.name: row.evaluation for row in self.rows if row.is_reference and row.evaluation}
        return weak_experts(measured[ZERO_SHOT], measured[EXPERTS]) if len(measured) == 2 else ()

    def to_dict(self) -> dict[str, Any]:
        plain = {
            "split": self.split,
            "limit": self.limit,
            "val_limit": self.val_limit,
            "measured_on": self.measured_on,
            "split_rules": dict(self.row(ZERO_SHOT).measured.split_rules),
            "warnings": list(self.notes),
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
    mix: Mix | None = None,
    known: Mapping[str, Row] | None = None,
    on_row: Callable[[Row], None] | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
    engine: Engine | None = None,
    opener: Opener | None = None,
) -> Comparison:
    """Every method on the same images, plain averaging first (always, as what the others are compared to), then Task
    Arithmetic, if it is among them, with a second row at the papers' α: adaptive methods report what they gain over it.

    ``slugs`` may name rows of ``VARIANTS`` too, and further settings of a method ("ties#2"). ``parameters`` maps slugs, or such
    names, to what differs from the defaults; ``on_row`` gets each row as it is ready. Rows of an earlier run on the same images,
    ``known`` by name, are taken over and not computed again; ``on_row`` does not get those. A method that fails keeps its row
    with the reason, the others go on. ``mix`` holds for every method. With an ``engine`` of other machines, ``opener`` opens the
    models there. Raises InputError for an unknown slug or expert before anything is computed and Cancelled when ``cancelled()``
    turns true.
    """
    names = row_names(slugs)
    for name in names:
        method(slug_of(name))
    bench.vectors.mixed(mix)  # refused before anything is computed, and not once for every row
    ready, known = on_row or (lambda row: None), known or {}
    tell = Share(progress, "")
    done = sum(name in known for name in names)
    tell.part(0.0, 1.0)(_share(done, len(names)) if done else 0.0, "zero-shot and experts")
    zero_shot, experts = _references(bench, known, split=split, limit=limit, cancelled=cancelled)
    if done < len(names):
        # The validation split's experts too, before any clock runs: no method's α search pays for them.
        bench.experts(split="val", limit=val_limit, cancelled=cancelled)
    rows, found = [zero_shot], dict(known)
    if ZERO_SHOT not in known:
        ready(zero_shot)
    maker = RowMaker(
        parameters or {}, {"split": split, "limit": limit, "val_limit": val_limit, "diagnosed": diagnosed, "mix": mix}
    )

    def part(place: int) -> Progress:
        return tell.part(_share(done + place, len(names)), _share(done + place + 1, len(names)))

    lacking = [name for name in names if name not in known]
    arriving = measured_rows(bench, lacking, maker, part, cancelled, engine, opener)
    for name in names:
        while name not in found:
            other, row = next(arriving)
            found[other] = row
        rows.append(_with_differences(found[name], rows))
        if rows[-1] is not known.get(name):
            ready(rows[-1])
    if EXPERTS not in known:
        ready(experts)
    return Comparison(split, limit, val_limit, (*rows, experts))


def row_names(slugs: Sequence[str]) -> list[str]:
    """The rows between zero-shot and experts: averaging, Task Arithmetic's two where it is among the methods, the others."""
    arithmetic = [PAPERS, TASK_ARITHMETIC] if TASK_ARITHMETIC in slugs else []
    return list(dict.fromkeys([AVERAGE, *arithmetic, *slugs]))


def _with_differences(row: Row, before: Sequence[Row]) -> Row:
    """The row with its differences to the baselines before it, as far as they and it have figures."""
    baselines = {one.name: one.evaluation for one in before if one.evaluation and one.name in (AVERAGE, PAPERS, TASK_ARITHMETIC)}
    own = row.evaluation
    if own is None:
        return row
    if AVERAGE in baselines and row.difference is None:
        row = replace(row, difference=paired_difference(own, baselines[AVERAGE]))
    lacking = [name for name in baselines if name != AVERAGE and name not in row.gains]
    if lacking:
        row = replace(row, gains={**row.gains, **{name: paired_difference(own, baselines[name]) for name in lacking}})
    return row


def _share(done: int, methods: int) -> float:
    """The share of a comparison that is behind when so many methods are done; the references take the first tenth."""
    return 0.1 + 0.9 * done / methods


def _references(
    bench: Bench, known: Mapping[str, Row], *, split: str, limit: int | None, cancelled: IsCancelled | None
) -> tuple[Row, Row]:
    """``references``, as far as they are not known; the bench learns the known experts' row, with which it normalises."""
    if EXPERTS in known:
        bench.remember(known[EXPERTS].measured)
    if ZERO_SHOT in known and EXPERTS in known:
        return known[ZERO_SHOT], known[EXPERTS]
    zero_shot, experts = references(bench, split=split, limit=limit, cancelled=cancelled)
    return known.get(ZERO_SHOT, zero_shot), known.get(EXPERTS, experts)
