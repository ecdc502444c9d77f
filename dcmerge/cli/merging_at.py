"""A merge with its α, as several commands need it: given, fixed by the method, or the best on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcmerge.cli.output import Progress
from dcmerge.evaluation import Bench, Scale, choose_scale
from dcmerge.merging.merge import Merged, merge
from dcmerge.studies.measuring import fixed_scale


def merged_at(
    bench: Bench, slug: str, parameters: Mapping[str, Any], given: float | None, limit: int | None, progress: Progress
) -> tuple[Merged, Scale]:
    """The merge and its α; where none is given, the method's fixed one, else the best on ``limit`` validation images a task."""
    merged = merge(bench.vectors, slug, bench=bench, progress=progress, **parameters)
    if given is not None:
        return merged, Scale(given, "given")
    found = fixed_scale(slug) or choose_scale(bench, merged.deltas, limit=limit, progress=progress)
    return merged, found
