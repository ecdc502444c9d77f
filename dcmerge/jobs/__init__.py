"""Runs that outlive the browser tab: worker processes of their own, a journal on disk, one queue, cancel and resume."""

from dcmerge.jobs.journal import CANCELLED, DONE, FAILED, INTERRUPTED, QUEUED, RUNNING
from dcmerge.jobs.queue import Job, all_jobs, cancel, job, resume, submit

__all__ = [
    "CANCELLED", "DONE", "FAILED", "INTERRUPTED", "QUEUED", "RUNNING", "Job", "all_jobs", "cancel", "job", "resume", "submit",
]  # fmt: skip
