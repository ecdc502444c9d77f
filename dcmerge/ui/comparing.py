"""Comparisons in the background, as the Compare page sees them: the only module of the pages that knows how they are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dcmerge import jobs
from dcmerge.comparison import Comparison
from dcmerge.jobs import Job
from dcmerge.model_sets import ModelSet
from dcmerge.ui.text import duration

RUNNING, DONE, FAILED, CANCELLED, INTERRUPTED = jobs.RUNNING, jobs.DONE, jobs.FAILED, jobs.CANCELLED, jobs.INTERRUPTED
Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """One comparison: what was asked for, how far it is, and the rows that are ready."""

    id: str
    spec: Spec
    started: datetime
    state: str = RUNNING
    share: float = 0.0
    text: str = "starting"
    error: str = ""
    comparison: Comparison | None = None

    @property
    def is_running(self) -> bool:
        return self.state in (RUNNING, jobs.QUEUED)

    @property
    def can_resume(self) -> bool:
        return self.state in (FAILED, CANCELLED, INTERRUPTED)


def _shown(job: Job) -> Shown:
    text = job.text or ("waiting for earlier jobs" if job.state == jobs.QUEUED else "starting")
    rest = f", about {duration(job.remaining)} left" if job.remaining is not None else ""
    return Shown(job.id, job.specification, datetime.fromtimestamp(job.created), job.state, job.share, text + rest, job.error,
                 job.comparison())  # fmt: skip


def submit(models: ModelSet, spec: Spec) -> str:
    """Start a comparison; returns its id."""
    return jobs.submit(spec).id


def listed(models: ModelSet) -> list[Shown]:
    """The comparisons on this set as they are now, newest first."""
    asked = {"kind": "compare", "set": models.name}
    return [_shown(job) for job in jobs.all_jobs() if asked.items() <= job.specification.items()]


def find(id: str) -> Shown | None:
    return next((_shown(job) for job in jobs.all_jobs() if job.id == id), None)


def cancel(id: str) -> None:
    jobs.cancel(id)


def resume(models: ModelSet, id: str) -> str:
    """Go on with a comparison that stopped; returns the id it goes on under."""
    return jobs.resume(id).id
