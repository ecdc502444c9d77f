"""A verdict as rows: for a table, a CSV file, or JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dcmerge.runs.tables import as_csv as csv_text
from dcmerge.studies.damage.tables import label_of
from dcmerge.studies.verdict.found import PairFacts, PairVerdict, Verdict

#: How the whole model is called among its parts.
WHOLE = "whole model"


def rows(found: Verdict) -> list[dict[str, Any]]:
    """One row a pair, as a whole, in the order of the tasks."""
    return [{"first": one.first, "second": one.second, **_of_pair(one)} for one in found.pairs]


def _of_pair(one: PairVerdict) -> dict[str, Any]:
    return {"word": one.word, "because": one.reason, **numbers(one.whole)}


def part_rows(found: Verdict) -> list[dict[str, Any]]:
    """One row a pair and part, the whole model first."""
    whole = [{"part": WHOLE, "label": WHOLE, **row} for row in rows(found)]
    return whole + [
        {"part": unit, "label": label_of(unit), "first": one.first, "second": one.second}
        | {"word": one.part_words[unit], "because": "", **numbers(facts)}
        for one in found.pairs
        for unit, facts in one.parts.items()
    ]


def numbers(facts: PairFacts) -> dict[str, Any]:
    """The facts under the names that tables use."""
    return {
        "cosine": facts.cosine,
        "opposite signs": facts.conflict,
        "opposite signs by chance": facts.conflict_by_chance,
        "overlap, times chance": facts.overlap,
        "outputs": facts.outputs,
        "inputs": facts.inputs,
        "overlap share": facts.overlap_share,
        "beyond chance": facts.overlap_beyond_chance,
        "norm ratio": facts.norm_ratio,
        "top share, first": facts.concentration[0],
        "top share, second": facts.concentration[1],
    }


def as_csv(found: Verdict) -> str:
    """``part_rows`` as CSV."""
    return csv_text(part_rows(found))


def to_data(found: Verdict) -> dict[str, Any]:
    """Everything that was found, as plain data; shares from 0 to 1."""
    return {
        "text": found.text,
        "words": found.words(),
        "set": asdict(found.facts),
        "lengths": dict(found.lengths),
        "pairs": rows(found),
        "parts": {"by": found.by, "rows": [row for row in part_rows(found) if row["part"] != WHOLE]},
    }
