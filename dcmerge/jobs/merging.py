"""The work of a merge as a job: α is settled, the file or folder written, and what was written is read again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import Roots, write_text
from dcmerge.errors import InputError
from dcmerge.evaluation import Scale
from dcmerge.evaluation.own_models import BenchSpecification, open_bench
from dcmerge.jobs.merge_specification import Merge
from dcmerge.jobs.record import Job
from dcmerge.jobs.scaling import merged_for, scale_for
from dcmerge.merging.merge import Merged, merge_to
from dcmerge.merging.output import Written, check_target
from dcmerge.merging.recipe import BASE, Recipe
from dcmerge.merging.verify import verify, with_recipe
from dcmerge.runtime.plain import from_plain
from dcmerge.sets.model_sets import ModelSet, open_set_by_name
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.mix import Mix
from dcmerge.vectors.task_vectors import TaskVectors
from dcmerge.zoo import ZOOS, open_zoo

Tell = Callable[[float | None, str], None]


def run_merge(job: Job, spec: Merge, tell: Tell, log: Callable[[str], None]) -> None:
    """The target is claimed, α chosen, the file written; it appears whole or not at all. Finished steps are not repeated."""
    done = job.steps()
    if "target" not in done:
        spec.checked_target()
        job.finish_step("target", {"out": spec.out})
    models = _opened(job, spec, tell)
    if "file" not in done:
        given = None if spec.scale is None else Scale(spec.scale, spec.scale_origin)
        known = (from_plain(Scale, done["scale"]), None) if "scale" in done else None
        scale, merged = known or scale_for(job, models, spec.method, given, spec.val_limit, tell)
        if "scale" not in done:
            log(f"α = {scale.value:g} ({scale.origin})")
            job.finish_step("scale", scale)
        written = _write(job, spec, models, scale, merged, tell)
        log(f"wrote {written.path}")
        job.finish_step("file", {"out": spec.out, "bytes": written.nbytes, "notes": list(written.notes)})
    tell(None, "reading it again")
    found = _verified(spec, models.vectors)
    log(str(found.get("error") or ("nothing is off" if found["sound"] else "something is off")))
    job.finish_step("verified", found)


def _opened(job: Job, spec: Merge, tell: Tell) -> ModelSet:
    tell(None, "opening the models")
    if (own := spec.models) is not None:
        vectors = TaskVectors.open(own.base, own.experts, qkv=spec.qkv, fit=Fit.of(own.fit))
        found = ModelSet(
            spec.set, spec.set, vectors, open_bench(vectors, BenchSpecification.of(own.bench)) if own.bench else None
        )
    elif spec.set in ZOOS:
        zoo = open_zoo(spec.set, qkv=spec.qkv)
        found = ModelSet(zoo.name, zoo.title, zoo.vectors, zoo.bench)
    else:
        found = open_set_by_name(spec.set, Roots(job.roots))
    found.vectors.tolerance = spec.tolerance
    return replace(found, vectors=found.vectors.mixed(Mix.from_data(spec.mix)))


def _write(job: Job, spec: Merge, models: ModelSet, scale: Scale, merged: Merged | None, tell: Tell) -> Written:
    target = spec.target.fitting(models.vectors)
    check_target(models.vectors, target)
    chosen: dict[str, Any] = {"scale": scale.value, "scale_origin": scale.origin, "task": spec.task}
    if merged is None and not spec.measure:
        how = {"bench": models.bench, "progress": tell, "cancelled": job.cancel_marker.exists}
        written = merge_to(models.vectors, spec.method.slug, target, **chosen, **how, **spec.method.parameters)
    else:
        merged = merged or merged_for(job, models, spec.method, tell)
        if spec.measure:
            bench = models.images
            found = bench.evaluate(merged.model(bench, scale.value), spec.method.slug, split=spec.measure, progress=tell)
            target = replace(target, evaluation=found)
        tell(0.95, f"writing {target.path.name}")
        written = merged.write(target, **chosen)
    if spec.recipe:
        recipe = Recipe.open(with_recipe(target.path))
        write_text(Path(spec.recipe), recipe.text_for(spec.recipe))
    return written


def _verified(spec: Merge, vectors: TaskVectors) -> dict[str, Any]:
    """What ``verify`` says; where it cannot be asked (a method that needs images) the reason. A merge does not fail by that."""
    sources = {**({BASE: vectors.base} if vectors.base else {}), **vectors.experts}
    given = {} if vectors.zoo else {name: str(one.path) for name, one in sources.items()}
    try:
        found = verify(spec.out, given).to_dict()
    except InputError as error:
        return {"error": str(error)}
    return {name: found[name] for name in ("path", "sound", "checks")}
