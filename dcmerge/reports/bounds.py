"""A report as pass or fail: bounds such as "mean>=0.7" on its values, for pipelines."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dcmerge.errors import InputError
from dcmerge.reports.model import Report

_SIGNS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_BOUND = re.compile(r"\s*(.+?)\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True)
class Bound:
    """``name`` is one of a report's values."""

    name: str
    sign: str
    limit: float

    def holds(self, value: float) -> bool:
        return _SIGNS[self.sign](value, self.limit)

    @property
    def text(self) -> str:
        return f"{self.name} {self.sign} {self.limit:g}"


def bounds(texts: Sequence[str]) -> list[Bound]:
    """From "mean>=0.7"; raises InputError for anything else."""
    found = []
    for text in texts:
        match = _BOUND.fullmatch(text)
        try:
            limit = float(match[3]) if match else math.nan
        except ValueError:
            limit = math.nan
        if match is None or math.isnan(limit):
            raise InputError(f"require: expected NAME>=NUMBER, or >, <=, <, as in mean>=0.7, got {text!r:.100}")
        found.append(Bound(match[1], match[2], limit))
    return found


def judged(report: Report, asked: Sequence[Bound]) -> list[tuple[Bound, float, bool]]:
    """Every bound with the value and whether it holds; raises InputError for a name that the report does not have."""
    for bound in asked:
        if bound.name not in report.values:
            raise InputError(f"require: expected one of {', '.join(report.values)}, got {bound.name!r:.100}")
    return [(bound, value := report.values[bound.name], bound.holds(value)) for bound in asked]
