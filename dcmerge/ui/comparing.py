"""Comparisons in the background, as the Compare page sees them: the only module of the pages that knows how they are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.comparison import Comparison

Spec = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Shown:
    """One comparison as it was when it was looked at; ``comparison`` holds the rows that are ready."""

    id: str
    state: str
    share: float = 0.0
    text: str = ""
    error: str = ""
    can_resume: bool = False
    comparison: Comparison | None = field(default=None, repr=False)

    @property
    def is_running(self) -> bool:
        return self.state in jobs.ACTIVE


def submit(spec: Spec) -> str:
    """Start a comparison; returns its id."""
    return jobs.submit(spec).id


def _shown(job: jobs.Job) -> Shown:
    """``state`` is read first: whatever has ended by then has all its rows."""
    state, progress = job.state, job.progress
    text = "waiting for an earlier job" if state is jobs.State.QUEUED else progress.text
    return Shown(job.id, str(state), progress.share, text, job.error, job.resumable, job.comparison())


def listed(models: ModelSet) -> dict[str, str]:
    """Ids of the comparisons on this set, newest first, and when, on how many images and what, in one line."""
    comparisons = [(job, spec) for job in jobs.all_jobs() if isinstance(spec := job.specification, jobs.Compare)]
    return {job.id: _label(job, spec.limit) for job, spec in comparisons if spec.set == models.name}


def _label(job: jobs.Job, limit: int | None) -> str:
    images = f"{limit} images a task" if limit else "all images"
    return f"{datetime.fromtimestamp(job.created):%d %b %H:%M:%S} · {images} · {job.label}"


def find(id: str) -> Shown | None:
    """The comparison as it is now; None where there is none of that id any more."""
    try:
        return _shown(jobs.job(id))
    except InputError:
        return None


def cancel(id: str) -> None:
    """Stop it; nothing happens where it has ended meanwhile."""
    try:
        jobs.cancel(id)
    except InputError:
        return


def resume(id: str) -> None:
    """Go on with one that stopped; nothing happens where somebody else did so meanwhile."""
    try:
        jobs.resume(id)
    except InputError:
        return
