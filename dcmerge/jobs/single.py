"""One method on its own, as jobs: its α found on validation, or its accuracy beside those of base and experts.

The rows of base and experts are most of the work where nobody has measured them yet, and count in the progress.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Scale, choose_scale
from dcmerge.jobs.record import Job
from dcmerge.jobs.specification import Evaluate, FindScale
from dcmerge.merging.merge import merge
from dcmerge.methods import method
from dcmerge.runs import EVALUATION, SetId
from dcmerge.runtime.plain import from_plain
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.measuring import Row, Share, measure, references
from dcmerge.studies.recording import keep_rows
from dcmerge.studies.tells.proposing import scale_without_labels
from dcmerge.vectors.mix import Mix

Tell = Callable[[float | None, str], None]


def find_scale(job: Job, spec: FindScale, models: ModelSet, tell: Tell) -> str:
    """Search, and keep what was found as the step "scale"; a line for the log. Who asks gets a search, whatever is usual."""
    cancelled, slug = job.cancel_marker.exists, spec.method.slug
    share = Share(tell, method(slug).title)
    _keep_set(job, models)
    if spec.labels:
        _know_experts(job, spec, models, share)
    bench, vectors = models.images, models.vectors.mixed(Mix.from_data(spec.mix))
    merged = merge(vectors, slug, bench=bench, progress=share.part(0.07, 0.12), cancelled=cancelled, **spec.method.parameters)
    how: dict[str, Any] = {"limit": spec.val_limit, "progress": share.part(0.12, 1.0), "cancelled": cancelled}
    if spec.labels:
        found = choose_scale(bench, merged.deltas, modules=merged.modules, **how)
    else:
        found = scale_without_labels(bench, merged, keep_fixed=False, **how)
    job.finish_step("scale", found)
    return f"α = {found.value:g} ({found.origin})"


def _know_experts(job: Job, spec: FindScale, models: ModelSet, share: Share) -> None:
    """The experts' accuracies, by which those of the merge are divided: from the finished step, or measured."""
    bench, done = models.images, job.steps()
    if EXPERTS in done:
        bench.remember(from_plain(Row, done[EXPERTS]).measured)
        return
    on_val = {"split": "val", "limit": spec.val_limit}
    experts = bench.experts(**on_val, progress=share.part(0.0, 0.07), cancelled=job.cancel_marker.exists)
    job.finish_step(EXPERTS, Row(EXPERTS, EXPERTS, evaluation=experts))


def evaluate(job: Job, spec: Evaluate, models: ModelSet, tell: Tell) -> str:
    """Measure base, experts and the merged model, each a step that is kept and a run; a line for the log."""
    cancelled, bench, known = job.cancel_marker.exists, models.images, job.rows()
    images = {"split": spec.split, "limit": spec.limit}
    share = Share(tell, "")
    _keep_set(job, models)
    if {ZERO_SHOT, EXPERTS} <= set(known):
        bench.remember(known[EXPERTS].measured)
    else:
        for row in references(bench, **images, progress=share.part(0.0, 0.65), cancelled=cancelled):
            _keep(job, spec, models, row.name, row)
    given = None if spec.scale is None else Scale(spec.scale, spec.scale_origin)
    row = measure(
        bench,
        spec.method.slug,
        spec.method.parameters,
        scale=given,
        **images,
        val_limit=spec.val_limit,
        mix=Mix.from_data(spec.mix),
        progress=share.part(0.65 if given else 0.2, 1.0),
        cancelled=cancelled,
    )
    return _keep(job, spec, models, "merged", row)


def _keep_set(job: Job, models: ModelSet) -> None:
    """Which models these are: whoever looks at the result later can tell whether they are still the same."""
    if "set" not in job.steps():
        job.finish_step("set", {"hash": SetId.of(models.vectors, models.name).hash})


def _keep(job: Job, spec: Evaluate, models: ModelSet, name: str, row: Row) -> str:
    problem = keep_rows(models.images, spec.set, EVALUATION, [row], job.id)
    job.finish_step(name, row)
    return f"{row.title}: {100 * row.measured.mean:.1f} % on average{f'; {problem}' if problem else ''}"
