"""α, and ρ where a method has it, proposed without labels: by what a measure says of every value that is tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, Scale, choose_scale
from dcmerge.merging.merge import Merged, merge
from dcmerge.methods import method
from dcmerge.studies.measuring import fixed_scale
from dcmerge.studies.tells.measures import AGREEMENT, DRIFT, ENTROPY, INTERFERENCE, LENGTH, MEASURES
from dcmerge.studies.tells.measuring import Images, WeightMeasures, encoded

Progress = Callable[[float, str], None]
IsCancelled = Callable[[], bool]
#: What α is proposed by: the measures that change with it, the one that told best on both demos first.
PROPOSING = (AGREEMENT, ENTROPY, DRIFT, LENGTH, INTERFERENCE)
#: Values of ρ that are tried, and its name among a method's parameters.
RHOS, RHO = (1.0, 2.0, 5.0, 10.0, 20.0), "rho"


@dataclass(frozen=True)
class Proposal:
    """Parameters and α of the best score of a measure; ``tried``: the value of ρ, its α and its score."""

    parameters: Mapping[str, Any]
    scale: Scale
    tried: tuple[tuple[float, float, float], ...] = field(default=(), repr=False)


def scale_without_labels(
    bench: Bench,
    merged: Merged,
    by: str = AGREEMENT,
    *,
    limit: int | None = None,
    images: Images | None = None,
    keep_fixed: bool = True,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> Scale:
    """The α of ``choose_scale``'s grid with the best mean score of a measure; no label is read.

    ``limit``: validation images a task (default: all); ``images``: the same, where they are made already; ``keep_fixed``: no
    search for a method whose α is fixed. Raises InputError for a measure that α does not change, for a method with a part for
    each task, and Cancelled.
    """
    if by not in PROPOSING:
        raise InputError(f"measure: expected one of {', '.join(PROPOSING)}, which change with α, got {by!r}")
    if keep_fixed and (fixed := fixed_scale(merged.method)):
        return fixed
    if merged.modules or merged.assembly:
        raise InputError(f"{merged.method}: expected a method that gives one model for all tasks, got one that does not")
    score = MEASURES[by].score
    weights = None if MEASURES[by].images else WeightMeasures.of(merged.vectors, merged.deltas)
    if weights is None:
        images = images or Images.of(bench, 0, limit, cancelled)

    def judge(alpha: float) -> float:
        if weights is not None:
            values = weights.lengths(alpha) if by == LENGTH else weights.interference(alpha)
            return _mean([score(value) for value in values.values()])
        assert images is not None
        features = encoded(bench, bench.merged_weights(merged.deltas, alpha), images.parts, cancelled)
        found = (images.measures(own, task) for task, own in features.items())
        return _mean([score(one[by]) for one in found if by in one])

    what = f"validation split without labels, by {by}"
    return choose_scale(bench, merged.deltas, limit=limit, judge=judge, judged_by=what, progress=progress, cancelled=cancelled)


def propose(
    bench: Bench,
    slug: str,
    parameters: Mapping[str, Any] | None = None,
    by: str = AGREEMENT,
    *,
    rhos: Sequence[float] = RHOS,
    limit: int | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> Proposal:
    """α, and ρ of a method that has it and smooths by it, with the best score of a measure; equal scores go to the smaller ρ."""
    values = method(slug).check(parameters or {})
    images = Images.of(bench, 0, limit, cancelled) if by in MEASURES and MEASURES[by].images else None
    found: list[tuple[dict[str, Any], Scale]] = []
    cells = [{**values, RHO: rho} for rho in rhos] if RHO in values and values.get("smoothing") == "linear" else [values]
    for place, cell in enumerate(cells):
        if progress:
            progress(place / len(cells), f"ρ = {cell[RHO]:g}" if len(cells) > 1 else slug)
        merged = merge(bench.vectors, slug, bench=bench, cancelled=cancelled, **cell)
        found.append((cell, scale_without_labels(bench, merged, by, limit=limit, images=images, cancelled=cancelled)))
    best, scale = max(found, key=lambda pair: _top(pair[1]))
    tried = tuple((cell[RHO], one.value, _top(one)) for cell, one in found) if len(cells) > 1 else ()
    return Proposal(best, scale, tried)


def _top(scale: Scale) -> float:
    """The best score along the search."""
    return max((score for _, score in scale.curve), default=0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
