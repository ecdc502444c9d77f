"""Damage maps as the Diagnose page sees them: started, and found again after a reload."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import streamlit as st

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.evaluation import Scale
from dcmerge.jobs.damaging import looks_state, map_so_far
from dcmerge.methods import method
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.damage import DamageMap, Plan
from dcmerge.ui.view import choose

#: The map that is shown, and why the last click started nothing.
SHOWN, REFUSED = "damage", "damage.refused"


def start(models: ModelSet, plan: Plan, scale: Scale) -> None:
    """For a button: submit it and show it."""
    spec = {"kind": "damage", "set": models.name, "plan": asdict(plan), "scale": scale.value, "scale_origin": scale.origin}
    try:
        job = jobs.submit(spec)
    except InputError as error:
        st.session_state[REFUSED] = str(error)
        return
    choose(SHOWN, job.id)


def listed(models: ModelSet) -> dict[str, str]:
    """Ids of the maps of this set, newest first, and when and what, in one line."""
    found = [job for job in jobs.all_jobs() if isinstance(spec := job.specification, jobs.Damage) and spec.set == models.name]
    return {job.id: _label(job) for job in found}


def _label(job: jobs.Job) -> str:
    spec = job.specification
    assert isinstance(spec, jobs.Damage)
    alpha = "" if spec.scale is None else f", α = {spec.scale:g}"
    images = f"{spec.plan.limit} images a task" if spec.plan.limit else "all images"
    return f"{datetime.fromtimestamp(job.created):%d %b %H:%M:%S} · {method(spec.plan.slug).title}{alpha} · {images}"


def found_of(job: jobs.Job) -> DamageMap | None:
    """What it has found so far, read again only when there is more."""
    state = looks_state(job)
    return None if state is None else _read(job.id, state, job)


@st.cache_resource(max_entries=6, show_spinner=False)
def _read(id: str, state: tuple[int, int], _job: jobs.Job) -> DamageMap | None:
    return map_so_far(_job)
