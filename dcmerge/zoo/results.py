"""Our own numbers on the demo, as ``python -m dcmerge compare --zoo demo --json`` printed them into the zoo's data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dcmerge.zoo import DATA, kept_edition

FILE = "comparison.json"
# The file is made by: python -m dcmerge compare --zoo demo --methods all --json > dcmerge/zoo/data/comparison.json


@dataclass(frozen=True)
class DemoRow:
    """One method's means on the demo, as shares."""

    title: str
    accuracy: float
    interval: tuple[float, float]
    normalised: float | None
    scale: float | None
    scale_origin: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class DemoResults:
    """What was measured on which images, by slug; the references are among the rows."""

    measured_on: str
    rows: Mapping[str, DemoRow]


def demo_results(data: Path = DATA) -> DemoResults | None:
    """The kept comparison; None where none was made of this edition of the demo, or where the file is none."""
    try:
        kept = json.loads((data / FILE).read_text(encoding="utf-8"))
        if kept["edition"] is None or kept["edition"] != kept_edition(data):
            return None
        rows = {row["name"]: _row(row) for row in kept["rows"] if row["accuracy"]}
        return DemoResults(kept["measured_on"], rows)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _row(row: Mapping[str, Any]) -> DemoRow:
    scale = row["scale"] or {"value": None, "origin": ""}
    measured = row["accuracy"]
    low, high = measured["mean_interval"]
    means = measured["mean"], (low, high), measured["mean_normalised"]
    return DemoRow(row["title"], *means, scale["value"], scale["origin"], row["parameters"])
