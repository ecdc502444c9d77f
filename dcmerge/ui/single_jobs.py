"""Find α and Evaluate as background jobs, as the Merge page sees them: started, watched, and found again after a reload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, Evaluation, Scale
from dcmerge.sets.model_sets import ModelSet
from dcmerge.ui.job_buttons import bar, cancel_button, job_or_none, progress_text, resume_button
from dcmerge.ui.text import duration, plain

#: Ids of this session's searches whose α is still to be put on the slider, and what could not be started.
_MINE, REFUSED = "single.mine", "single.refused"
#: Seconds until a worker has started and opened a small set, and about how many α a search tries.
_START, _TRIED = 6.0, 14
_KINDS = (jobs.FindScale, jobs.Evaluate)


def start(spec: Mapping[str, Any]) -> None:
    """For a button: submit, unless the very same work waits or runs already. A search sets this session's slider."""
    try:
        checked = jobs.specification(spec)
        same = next((job for job in jobs.all_jobs() if job.state in jobs.ACTIVE and job.specification == checked), None)
        job = same or jobs.submit(checked)
    except InputError as error:
        st.session_state[REFUSED] = str(error)
        return
    if isinstance(job.specification, jobs.FindScale):
        st.session_state.setdefault(_MINE, []).append(job.id)


def just_found() -> list[tuple[str, Scale]]:
    """(method, α) of this session's searches that have ended since it last asked."""
    waiting, found = st.session_state.get(_MINE, []), []
    for id in list(waiting):
        job = job_or_none(id)
        if job is None or job.state not in jobs.ACTIVE:
            waiting.remove(id)
        if job and (scale := job.scale()) and isinstance(job.specification, jobs.FindScale):
            found.append((job.specification.method.slug, scale))
    return found


def of_set(models: ModelSet, kinds: tuple[type, ...] = _KINDS) -> list[jobs.Job]:
    """Searches and evaluations on this set, or jobs of other ``kinds``, newest first."""
    return [job for job in jobs.all_jobs() if isinstance(job.specification, kinds) and job.specification.set == models.name]


def scales_of(models: ModelSet, hash: str) -> dict[bool, dict[tuple, Scale]]:
    """What was ever found on these very models with their mix, by (method, parameters), the newest search of each.

    Under True what searches by accuracy found, under False what those without labels did.
    """
    found: dict[bool, dict[tuple, Scale]] = {True: {}, False: {}}
    for job in of_set(models):
        spec = job.specification
        if not isinstance(spec, jobs.FindScale) or not models.is_mixed_by(spec.mix):
            continue
        if job.set_hash() == hash and (scale := job.scale()):
            found[spec.labels].setdefault((spec.method.slug, tuple(sorted(spec.method.parameters.items()))), scale)
    return found


def tested(models: ModelSet, hash: str, slug: str, parameters: Mapping[str, Any], scale: float) -> dict[str, Evaluation] | None:
    """Base, experts and merged model as the newest evaluation of these values on test found them; None where there is none."""
    for job in of_set(models):
        spec, rows = job.specification, job.rows()
        if not isinstance(spec, jobs.Evaluate) or job.set_hash() != hash or "merged" not in rows:
            continue
        if not models.is_mixed_by(spec.mix):
            continue
        if (spec.method.slug, spec.method.parameters, spec.scale, spec.split) == (slug, parameters, scale, "test"):
            return {name: row.measured for name, row in rows.items()}
    return None


def seconds_of(bench: Bench, pace: float) -> tuple[float, float]:
    """About how long a search and an evaluation on test take, at so many seconds an image."""
    val, test = (sum(len(task.splits[split]) for task in bench.tasks.values()) for split in ("val", "test"))
    return _START + pace * val * (1 + _TRIED), _START + pace * test * 3


def ahead_text() -> str:
    """What waits before a job that is started now; empty where the queue is."""
    active = [job for job in jobs.all_jobs() if job.state in jobs.ACTIVE]
    if not active:
        return ""
    count = "1 job is" if len(active) == 1 else f"{len(active)} jobs are"
    left = [job.progress.remaining for job in active if job.state is jobs.State.RUNNING]
    known = f" (the one that runs has about {duration(left[0])} left)" if left and left[0] is not None else ""
    return f"{count} ahead in the queue{known}."


def watch(models: ModelSet, kinds: tuple[type, ...] = _KINDS) -> None:
    """Progress and a cancel button of each active job; what stopped without a result, and a button to go on with it."""
    found = of_set(models, kinds)
    active = [job for job in found if job.state in jobs.ACTIVE]
    if active:
        _watched([job.id for job in active])
    stopped = [job for job in found[:1] if job.state in jobs.RESUMABLE]
    for job in stopped:
        reason = f": {job.error}" if job.error else ""
        st.warning(plain(f"{job.label} is {job.state}{reason}. Finished steps are kept."), icon=":material/info:")
        resume_button(job, key=f"single.resume.{job.id}", note=REFUSED)


@st.fragment(run_every=1.0)
def _watched(ids: list[str]) -> None:
    """The bars; redraws the page when one of the jobs has ended."""
    found = [job_or_none(id) for id in ids]
    active = [job for job in found if job and job.state in jobs.ACTIVE]
    if len(active) < len(ids):
        st.rerun()
    for job in active:
        with st.container(horizontal=True, vertical_alignment="center"):
            bar(job, f"{job.label}: {progress_text(job)}")
            cancel_button(job, key=f"single.cancel.{job.id}", note=REFUSED, width="content")
