"""One queue for all sessions of a machine: submit, look, cancel, resume. A runner process works it off, one job at a time."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dcmerge.comparison import Comparison, Row
from dcmerge.errors import InputError
from dcmerge.evaluation import EXPERTS
from dcmerge.jobs.journal import CANCELLED, DONE, FAILED, INTERRUPTED, QUEUED, RUNNING, JobFolder, jobs_folder
from dcmerge.jobs.rows import row_from
from dcmerge.jobs.specification import Specification, checked, label

#: From this share of the work on its speed says how long the rest takes.
_ENOUGH = 0.02


@dataclass(frozen=True)
class Job:
    """A job as it was when it was looked at. ``share`` and ``text``: its progress; ``remaining``: seconds, where known."""

    id: str
    state: str
    specification: Specification
    created: float
    share: float = 0.0
    text: str = ""
    remaining: float | None = None
    error: str = ""
    folder: JobFolder = field(repr=False, compare=False, default=JobFolder(Path()))

    @property
    def label(self) -> str:
        return label(self.specification)

    @property
    def is_active(self) -> bool:
        return self.state in (QUEUED, RUNNING)

    @property
    def can_resume(self) -> bool:
        """It stopped before its end, or some of its methods failed."""
        return self.state in (FAILED, CANCELLED, INTERRUPTED) or (self.state == DONE and any(row.error for row in self.rows()))

    def rows(self) -> tuple[Row, ...]:
        """Rows of a comparison that are finished: zero-shot first, experts last."""
        if self.specification["kind"] != "compare":
            return ()
        rows = [row_from(data) for data in self.folder.steps().values()]
        wanted = ["zero-shot", "average", *(one["slug"] for one in self.specification["methods"]), EXPERTS]
        return tuple(sorted(rows, key=lambda row: wanted.index(row.name)))

    def comparison(self) -> Comparison | None:
        """The finished rows of a comparison; None while there are none."""
        rows, asked = self.rows(), self.specification
        return Comparison(asked["split"], asked["limit"], asked["val_limit"], rows) if rows else None

    def to_dict(self) -> dict[str, Any]:
        names = ("id", "state", "label", "created", "share", "text", "remaining", "error", "specification")
        return {name: getattr(self, name) for name in names} | {"steps": list(self.folder.steps())}


def submit(specification: Mapping[str, Any]) -> Job:
    """Queue a job and see to it that somebody works the queue off; raises InputError for a bad specification."""
    found = checked(specification)
    folder = JobFolder(jobs_folder() / f"{time.strftime('%Y%m%d-%H%M%S')}-{found['kind']}-{secrets.token_hex(2)}")
    folder.create(found)
    start_runner()
    return job(folder.id)


def all_jobs() -> list[Job]:
    """Every job, newest first."""
    return sorted((_look(folder) for folder in folders()), key=lambda one: (one.created, one.id), reverse=True)


def folders() -> list[JobFolder]:
    """The folders of all jobs."""
    return [JobFolder(path.parent) for path in jobs_folder().glob("*/job.json")]


def job(id: str) -> Job:
    """The job of that id, or of a part of it from the beginning that fits one job alone; raises InputError otherwise."""
    known = {folder.id: folder for folder in folders()}
    fitting = [name for name in known if name.startswith(id)] if id else []
    if id not in known and len(fitting) != 1:
        what = f"{len(fitting)} that begin with it" if fitting else "no such job"
        raise InputError(f"job: expected the id of one job, got {id!r} and found {what}")
    return _look(known.get(id) or known[fitting[0]])


def _look(folder: JobFolder) -> Job:
    described, state, began, share, text, error = folder.description(), QUEUED, 0.0, 0.0, "", ""
    for event in folder.events():
        if event.kind == "state":
            state, began, error = event.facts["value"], event.at, event.facts.get("error", "")
            share, text = (0.0, "") if state in (QUEUED, RUNNING) else (share, text)
        elif event.kind == "progress":
            share, text = event.facts["share"], event.facts["text"]
    if state == RUNNING and not folder.is_alive():
        # Perhaps it has just ended: what it wrote last is in the journal before its lock is free.
        last = [event.facts["value"] for event in folder.events() if event.kind == "state"][-1]
        state = INTERRUPTED if last == RUNNING else last
    passed = time.time() - began
    remaining = passed * (1 - share) / share if state == RUNNING and share > _ENOUGH else None
    share = 1.0 if state == DONE else share
    return Job(folder.id, state, described["specification"], described["created"], share, text, remaining, error, folder)


def cancel(id: str) -> Job:
    """Stop a job that waits or runs, within two seconds; what it has finished is kept. Raises InputError for another one."""
    found = job(id)
    if not found.is_active:
        raise InputError(f"job: expected a job that waits or runs, got {found.id}, which is {found.state}")
    found.folder.ask_to_stop()
    if found.state == QUEUED:
        found.folder.state(CANCELLED)
    return job(found.id)


def resume(id: str) -> Job:
    """Queue a job again that stopped before its end; finished steps are kept. Raises InputError for any other."""
    found = job(id)
    if not found.can_resume:
        raise InputError(f"job: expected one that was stopped or failed, got {found.id}, which is {found.state}")
    found.folder.forget_to_stop()
    found.folder.state(QUEUED)
    start_runner()
    return job(found.id)


def start_runner() -> None:
    """Start a process that works the queue off; where there is one already, the new one waits for it and finds nothing.

    It has a session of its own: neither the end of the server nor Ctrl-C in its terminal ends it.
    """
    with open(jobs_folder() / "runner.log", "ab") as log:
        runner = subprocess.Popen([sys.executable, "-m", "dcmerge.jobs.runner"], env=own_environment(), start_new_session=True,
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip
    # Somebody has to take notice of its end, or the system keeps it listed as long as this process lives.
    threading.Thread(target=runner.wait, name="end of the runner", daemon=True).start()


def own_environment() -> dict[str, str]:
    """The environment in which another Python finds this package, wherever it was started."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
