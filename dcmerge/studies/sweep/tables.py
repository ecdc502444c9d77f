"""A sweep as rows: for a table, a CSV file, or JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dcmerge.evaluation.objectives import MEAN, WORST
from dcmerge.methods.declare import value_text
from dcmerge.runs.tables import as_csv as csv_text
from dcmerge.studies.sweep.axes import SCALE
from dcmerge.studies.sweep.found import Found
from dcmerge.studies.sweep.points import Point


def rows(found: Found) -> list[dict[str, Any]]:
    """One row a point, the best first; accuracies in percent. A point that stopped early comes after those that did not."""
    chosen, on_front = found.best, {point.number for point in found.front}
    order = sorted(found.points, key=lambda point: (point.stopped, -found.estimate(point).value))
    return [_row(found, point, point is chosen, point.number in on_front) for point in order]


def _row(found: Found, point: Point, chosen: bool, on_front: bool) -> dict[str, Any]:
    mean, tasks = found.estimate(point, MEAN), found.yardstick.tasks(point.hits)
    worst = found.yardstick.worst_task(point.hits)
    axes = [axis.name for axis in found.plan.axes if axis.name != SCALE]
    return {
        "point": point.number,
        **{name: value_text(point.values[name]) if name in point.values else None for name in axes},
        "alpha": point.scale,
        "mean": _percent(mean.value),
        "mean low": _percent(mean.low),
        "mean high": _percent(mean.high),
        "worst task": worst,
        "worst": _percent(found.estimate(point, WORST).value),
        **{task: _percent(one.value) for task, one in tasks.items()},
        "images a task": point.images,
        "alphas tried": len(point.arms),
        "merge seconds": round(point.merge_seconds, 3),
        "seconds": round(point.seconds, 2),
        "outcome": "chosen" if chosen else "stopped early" if point.stopped else "on the front" if on_front else "",
    }


def _percent(share: float) -> float:
    return round(100 * share, 2)


def as_csv(found: Found) -> str:
    """``rows`` as CSV."""
    return csv_text(rows(found))


def to_data(found: Found) -> dict[str, Any]:
    """Everything that was found, as plain data."""
    best, honest = found.best, found.honest_estimate
    plan = found.plan
    return {
        "plan": asdict(plan),
        "text": plan.text,
        "images": found.images,
        "points": [row | {"curve": found_curve(found, row["point"])} for row in rows(found)],
        "front": [point.number for point in found.front],
        "errors": {str(number): text for number, text in found.errors.items()},
        "remaining": found.remaining,
        "best": None
        if best is None
        else {
            "point": best.number,
            "parameters": dict(best.parameters),
            "mix": dict(best.mix),
            "scale": best.scale,
            "values": dict(zip(plan.objectives, found.values(best), strict=True)),
            "interval": asdict(found.estimate(best)),
            "on_other_images": asdict(honest) if honest else None,
            "tried": found.tried,
            "origin": found.origin,
        },
        "test": [dict(test) for test in found.tests],
    }


def found_curve(found: Found, number: int) -> list[list[float]]:
    """α, mean normalised accuracy and images a task of every α that a point was looked at with."""
    point = next(point for point in found.points if point.number == number)
    return [list(row) for row in point.curve(found.yardstick)]
