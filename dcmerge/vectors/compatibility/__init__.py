"""Does a set of checkpoints fit together? Everything that differs, found before anything is merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint
from dcmerge.vectors.compatibility.groups import Group, groups_of
from dcmerge.vectors.compatibility.headers import compared
from dcmerge.vectors.compatibility.report import PART_ENTRIES, Finding, Kind, Parameter, Report, classify, row_spans
from dcmerge.vectors.compatibility.values import read_values
from dcmerge.vectors.fit import Fit

__all__ = [
    "PART_ENTRIES",
    "Finding",
    "Group",
    "Kind",
    "Parameter",
    "Report",
    "classify",
    "examine",
    "groups_of",
    "row_spans",
]


def examine(
    base: Checkpoint | None,
    experts: Mapping[str, Checkpoint],
    fit: Fit | None = None,
    *,
    values: bool = True,
    progress: Callable[[float, str], None] | None = None,
) -> Report:
    """Compare names, shapes and dtypes, then, if those fit, stream every value once. It does not raise for a set that differs.

    ``fit`` says what a person chose to leave out; a pattern in it that matches nothing raises InputError.
    Without ``values`` only headers are read: quick for any size, but NaN, zero deltas and equal experts are not found.
    """
    parameters, findings, copies = compared(base, experts, fit or Fit())
    if not values or any(finding.level == "error" for finding in findings):
        return Report(tuple(experts), parameters, tuple(findings), copies=copies)
    lora = all(isinstance(expert, LoraCheckpoint) for expert in experts.values())
    read = read_values(base, experts, [p for p in parameters if p.mergeable], progress)
    findings += read.findings(tuple(experts))
    norms = {task: math.sqrt(read.delta_square[task]) for task in experts}
    return Report(tuple(experts), parameters, tuple(findings), norms, None if lora else math.sqrt(read.base_square), copies)
