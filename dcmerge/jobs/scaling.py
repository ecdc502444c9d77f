"""The α of a job's merge: given, fixed, usual, or chosen on validation."""

from __future__ import annotations

from collections.abc import Callable

from dcmerge.evaluation import Scale, choose_scale
from dcmerge.jobs.checks import MethodChoice
from dcmerge.jobs.record import Job
from dcmerge.merging.merge import Merged, merge
from dcmerge.merging.recipe import USUAL, settled_scale
from dcmerge.methods import method
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.measuring import fixed_scale

Tell = Callable[[float | None, str], None]


def merged_for(job: Job, models: ModelSet, choice: MethodChoice, tell: Tell) -> Merged:
    """The merge itself, the first third of the work."""
    return merge(
        models.vectors,
        choice.slug,
        bench=models.bench,
        progress=lambda share, text: tell(0.3 * share, text),
        cancelled=job.cancel_marker.exists,
        **choice.parameters,
    )


def scale_for(
    job: Job, models: ModelSet, choice: MethodChoice, given: Scale | None, val_limit: int | None, tell: Tell
) -> tuple[Scale, Merged | None]:
    """α as given, fixed or usual; else the best on validation, with the merge that it was found with."""
    slug, cancelled = choice.slug, job.cancel_marker.exists
    if given is not None:
        return Scale(*settled_scale(slug, choice.parameters, models.vectors, given.value, given.origin)), None
    if fixed := fixed_scale(slug):
        return fixed, None
    if models.bench is None:
        return Scale(method(slug).usual_scale_for(models.vectors, choice.parameters), USUAL), None
    merged = merged_for(job, models, choice, tell)
    tell(0.3, "α on validation")
    models.bench.experts(split="val", limit=val_limit, cancelled=cancelled)
    found = choose_scale(
        models.bench,
        merged.deltas,
        limit=val_limit,
        cancelled=cancelled,
        progress=lambda share, text: tell(0.35 + 0.3 * share, text),
    )
    return found, merged
