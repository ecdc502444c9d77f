"""Long work in processes of its own: described by data, kept in a journal on disk, in one queue for everybody.

from dcmerge import jobs
job = jobs.submit({"kind": "compare", "set": "demo", "methods": ["ties", "dc_merge"], "limit": 40})
job.state, job.progress.share, job.progress.remaining, job.comparison()
jobs.cancel(job.id)
jobs.resume(job.id)
"""

from dcmerge.jobs.merge_specification import OwnModels
from dcmerge.jobs.queue import cancel, ensure_runner, resume, submit
from dcmerge.jobs.record import ACTIVE, RESUMABLE, Job, Progress, State, all_jobs, duration, job, state_folder, strange_folders
from dcmerge.jobs.specification import (
    Compare,
    Damage,
    Evaluate,
    FindScale,
    Merge,
    MethodChoice,
    Specification,
    Sweep,
    Tells,
    specification,
    to_data,
)
from dcmerge.runtime.plain import from_plain, to_plain

__all__ = [
    "ACTIVE",
    "RESUMABLE",
    "Compare",
    "Damage",
    "Evaluate",
    "FindScale",
    "Job",
    "Merge",
    "MethodChoice",
    "OwnModels",
    "Progress",
    "Specification",
    "State",
    "Sweep",
    "Tells",
    "all_jobs",
    "cancel",
    "duration",
    "ensure_runner",
    "from_plain",
    "job",
    "resume",
    "specification",
    "state_folder",
    "strange_folders",
    "submit",
    "to_data",
    "to_plain",
]
