"""Sweeps as the Tune page sees them: started, found again, and one of their points put on the controls of all pages."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import datetime

import streamlit as st

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.evaluation import Scale
from dcmerge.methods import method
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.sweep import SCALE, Found, Plan, Point
from dcmerge.studies.sweep.forecast import merge_seconds, pace_of
from dcmerge.ui import mixing
from dcmerge.ui.shell import SHARED, Page
from dcmerge.ui.view import choose
from dcmerge.vectors.mix import Mix

#: The sweep that is shown, its point that is looked at, and why the last click started nothing.
SHOWN, POINT, REFUSED = "sweep", "tune.point", "tune.refused"
#: Set where a chart of a running sweep has changed the controls outside of it.
REDRAW = "tune.redraw"
#: α that the Merge page's sliders are to be set to, by method (see ``choice.use_scale``), and where it is from.
_FOUND, _ORIGINS = "choice.found", "tune.origins"


def start(models: ModelSet, plan: Plan, workers: int) -> None:
    """For a button: submit it and show it."""
    try:
        job = jobs.submit({"kind": "sweep", "set": models.name, "plan": asdict(plan), "workers": workers})
    except InputError as error:
        st.session_state[REFUSED] = str(error)
        return
    choose(SHOWN, job.id)
    st.session_state.pop(POINT, None)


def listed(models: ModelSet) -> dict[str, str]:
    """Ids of the sweeps on this set, newest first, and when and what, in one line."""
    return {job.id: _label(job) for job in _sweeps(models)}


def _sweeps(models: ModelSet) -> list[jobs.Job]:
    return [job for job in jobs.all_jobs() if isinstance(spec := job.specification, jobs.Sweep) and spec.set == models.name]


def _label(job: jobs.Job) -> str:
    assert isinstance(job.specification, jobs.Sweep)
    plan = job.specification.plan
    what = ", ".join(axis.name for axis in plan.axes)
    images = f"{plan.limit} images a task" if plan.limit else "all images"
    return f"{datetime.fromtimestamp(job.created):%d %b %H:%M:%S} · {method(plan.slug).title} · {what} · {images}"


def found_of(job: jobs.Job) -> Found | None:
    """What it has found so far, read again only when its file has changed."""
    try:
        state = os.stat(job.study)
    except OSError:
        return None
    return _read(job.id, state.st_mtime_ns, state.st_size, job)


@st.cache_resource(max_entries=6, show_spinner=False)
def _read(id: str, changed: int, size: int, _job: jobs.Job) -> Found | None:
    from dcmerge.studies.sweep.running import read_found  # Optuna, which only who looks at a sweep needs

    assert isinstance(_job.specification, jobs.Sweep)
    return read_found(_job.study, _job.specification.plan)


@st.cache_resource(max_entries=8, show_spinner="Measuring how fast this machine is …")
def pace(key: str, _models: ModelSet) -> tuple[float, float]:
    """Seconds of an image, and of the first merge."""
    return pace_of(_models.images), merge_seconds(_models.images)


def take(found: Found, point: Point, scale: float | None = None) -> None:
    """For a callback: set the controls of all pages to a point, and α to the point's own or to that one."""
    slug, alpha = found.plan.slug, point.scale if scale is None else scale
    choose("method", slug)
    for name, value in point.parameters.items():
        choose(name if name in SHARED and slug == "dc_merge" else f"{slug}.{name}", value)
    st.session_state.setdefault(_FOUND, {})[slug] = alpha
    st.session_state[POINT] = (point.number, alpha)
    mix = Mix.from_data(point.mix).trimmed()
    mixing.take(mix)
    # What recipes and cards say of these values, as long as they stay.
    values = (slug, tuple(sorted(point.parameters.items())))
    st.session_state.setdefault(_ORIGINS, {})[values, mix.key] = Scale(alpha, found.origin_of(point))


def taken(models: ModelSet) -> dict[tuple, Scale]:
    """α and its origin of the points with this set's mix that this session took, by (method, parameters)."""
    known = st.session_state.get(_ORIGINS, {})
    return {values: scale for (values, mix), scale in known.items() if mix == models.vectors.mix.key}


def chosen_of(models: ModelSet, hash: str) -> dict[tuple, Scale]:
    """What sweeps on these very models with their mix have chosen, by (method, parameters), the newest of each.

    It is known to every session.
    """
    found: dict[tuple, Scale] = {}
    for job in _sweeps(models):
        best = job.chosen()
        if not best or best.get("hash") != hash or not isinstance(job.specification, jobs.Sweep):
            continue
        if models.is_mixed_by(best.get("mix") or {}):
            key = (job.specification.plan.slug, tuple(sorted(best["parameters"].items())))
            found.setdefault(key, Scale(best["scale"], best["origin"]))
    return found


def axis_labels(slug: str, page: Page) -> dict[str, str]:
    """How each parameter of a method, and of the mixer, is called on screen."""
    titles = {name: declared.constraint.title for name, declared in method(slug).parameters.items()}
    return {**titles, SCALE: "scale α", **mixing.axis_labels(page)}
