"""The work of a damage map's job: every look is kept as it is taken, and a map that was interrupted goes on from there."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from dcmerge.errors import InputError
from dcmerge.evaluation import Scale
from dcmerge.jobs.checks import MethodChoice
from dcmerge.jobs.journal import Journal
from dcmerge.jobs.record import Job
from dcmerge.jobs.scaling import scale_for
from dcmerge.jobs.specification import FRAME_STEP, MAP_STEP, Damage
from dcmerge.merging.merge import Merged
from dcmerge.runtime.plain import from_plain, to_plain
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.damage import DamageMap
from dcmerge.studies.damage.measuring import Frame, Look, damage, frame_of, map_of

Tell = Callable[[float | None, str], None]
_LOOK = "look"


def run_damage(job: Job, spec: Damage, models: ModelSet, tell: Tell, log: Callable[[str], None]) -> None:
    """α, then the looks."""
    done, merged = job.steps(), None
    if "scale" in done:
        scale = from_plain(Scale, done["scale"])
    else:
        choice = MethodChoice(spec.plan.slug, spec.plan.parameters)
        given = None if spec.scale is None else Scale(spec.scale, spec.scale_origin)
        scale, merged = scale_for(job, models, choice, given, spec.plan.limit, tell)
        log(f"α = {scale.value:g} ({scale.origin})")
        job.finish_step("scale", scale)
    log(make_map(job, spec, models, scale, tell, merged))


def make_map(job: Job, spec: Damage, models: ModelSet, scale: Scale, tell: Tell, merged: Merged | None = None) -> str:
    """All looks that are not taken yet; a line for the log. ``merged``: the merge, where it is made already."""
    bench = models.images
    if FRAME_STEP not in job.steps():
        job.finish_step(FRAME_STEP, frame_of(bench, spec.plan))
    journal = _looks(job)
    found = damage(
        bench,
        spec.plan,
        scale,
        merged=merged,
        known=looks_of(job),
        on_look=lambda look: journal.append(_LOOK, **to_plain(look)),
        progress=tell,
        cancelled=job.cancel_marker.exists,
    )
    job.finish_step(MAP_STEP, {"parts": len(found.units), "images": found.images})
    return f"{len(found.units)} parts looked at on {found.images} validation images a task"


def looks_of(job: Job) -> dict[str, Look]:
    """The looks that are taken so far, by name; damaged ones are taken again."""
    found: dict[str, Look] = {}
    for event in _looks(job).events(_LOOK):
        with suppress(InputError):
            look = from_plain(Look, event)
            found[look.name] = look
    return found


def map_so_far(job: Job) -> DamageMap | None:
    """The map of a job as far as it is; None before there is anything to show, and of another job."""
    spec, steps = job.specification, job.steps()
    if not isinstance(spec, Damage) or not {"scale", FRAME_STEP} <= set(steps):
        return None
    with suppress(InputError):
        frame, scale = from_plain(Frame, steps[FRAME_STEP]), from_plain(Scale, steps["scale"])
        return map_of(spec.plan, looks_of(job), frame, scale)
    return None


def looks_state(job: Job) -> tuple[int, int] | None:
    """What changes with every look that is taken (time and size of their file); None before the first."""
    try:
        state = os.stat(_looks(job).path)
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _looks(job: Job) -> Journal:
    return Journal(job.folder / "looks.jsonl")
