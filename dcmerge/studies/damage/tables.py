"""A damage map as rows: for a table, a CSV file, or JSON."""

from __future__ import annotations

from typing import Any

from dcmerge.runs.tables import as_csv as csv_text
from dcmerge.studies.damage.found import CHANGES, Change, DamageMap
from dcmerge.vectors.naming import place_of


def rows(found: DamageMap, images: int | None = None) -> list[dict[str, Any]]:
    """One row a cell, changes in percentage points: accuracy after the change minus that of the merge."""
    return [
        {"part": unit, "label": label_of(unit), "task": task, "change": change, **_cell(found.cell(change, unit, task, images))}
        for change in found.changed
        for unit in found.units
        for task in found.tasks
    ]


def label_of(unit: str) -> str:
    """A part as pages call it: "MLP in, block 2"."""
    return place_of(unit).label if "." in unit else unit


def _cell(change: Change) -> dict[str, Any]:
    return {
        "points": _points(change.value),
        "low": _points(change.low),
        "high": _points(change.high),
        "beyond noise": change.excludes_zero,
        "images": change.images,
    }


def _points(share: float) -> float:
    return round(100 * share, 2)


def as_csv(found: DamageMap, images: int | None = None) -> str:
    """``rows`` as CSV."""
    return csv_text(rows(found, images))


def to_data(found: DamageMap) -> dict[str, Any]:
    """Everything that was found, as plain data; accuracies are percent, changes percentage points."""
    return {
        "scale": {"value": found.scale, "origin": found.scale_origin},
        "images": found.images,
        "parts": list(found.units),
        "tasks": list(found.tasks),
        "accuracy": {
            name: {task: _points(own.double().mean().item()) for task, own in hits.items()}
            for name, hits in (("merged", found.merged), ("experts", found.experts), ("zero-shot", found.zero_shot))
        },
        "cells": rows(found),
        "sums": [_sum(found, change, task) for change in found.changed for task in found.tasks],
        "repaired": [
            {"parts": list(one.parts), "mean": _points(one.mean), "extra numbers": one.extra, "share": one.share}
            for one in found.repaired
        ],
        "changes": {change: CHANGES[change] for change in found.changed},
    }


def _sum(found: DamageMap, change: str, task: str) -> dict[str, Any]:
    """The sum of the single changes beside all of them at once."""
    joint = found.joint(change, task)
    return {
        "change": change,
        "task": task,
        "sum of single changes": _points(found.singles(change, task)),
        "all at once": None if joint is None else _points(joint.value),
    }
