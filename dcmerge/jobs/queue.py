"""Into the queue and out of it: submit, cancel, resume, and the runner that works the queue off."""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dcmerge.errors import InputError
from dcmerge.jobs.record import ACTIVE, RESUMABLE, Job, State, all_jobs, state_folder
from dcmerge.jobs.record import job as job_of
from dcmerge.jobs.specification import Specification, plugins_for, specification, to_data
from dcmerge.runtime import locks
from dcmerge.runtime.processes import environment, module_command
from dcmerge.runtime.state_files import write_json
from dcmerge.sets.model_sets import roots

RUNNER_LOCK = "runner.lock"
#: How long a lock may be held by somebody who only changes the state or looks at it, and by a worker that ends, in seconds.
_MOMENT, _ENDING = 0.2, 5.0


def submit(spec: Mapping[str, Any] | Specification) -> Job:
    """Check a specification, put it into the queue and see that the queue is worked off.

    Raises InputError for a specification that could not run, and where the jobs' folder cannot be written.
    """
    checked = specification(spec)
    created = time.time()
    stamp = datetime.fromtimestamp(created, UTC).strftime("%Y%m%d-%H%M%S")
    folder = state_folder() / f"{stamp}-{checked.kind}-{secrets.token_hex(2)}"
    job = Job(folder, checked.label, created, checked, tuple(map(str, roots().folders)), plugins_for(checked))
    about = {
        "label": job.label,
        "created": created,
        "specification": to_data(checked),
        "roots": list(job.roots),
        "plugins": [list(plugin) for plugin in job.plugins],
    }
    try:
        folder.mkdir(parents=True)
        _put_in_queue(job)
        write_json(folder / "job.json", about)  # last: with it the job is there
    except OSError as error:
        raise InputError(f"cannot write the job's folder {folder}: {error.strerror}") from None
    ensure_runner()
    return job


def cancel(name: str) -> Job:
    """Stop a job: a queued one at once, a running one within two seconds, finished steps are kept.

    Raises InputError for an unknown id and for a job that has ended.
    """
    job = job_of(name)
    if job.state not in ACTIVE:
        raise InputError(f"job: expected a queued or running one to cancel, got {job.id}, which is {job.state}")
    job.cancel_marker.touch()
    with locks.locked(job.lock, _MOMENT) as mine:
        # Without the lock somebody runs it, and looks for the marker.
        if mine is not None and job.told_state is State.QUEUED:
            job.journal.append("state", state=State.CANCELLED)
    if job.state is State.RUNNING:
        ensure_runner()
    return job


def resume(name: str) -> Job:
    """Put a job that did not get to its end into the queue again; its finished steps are not repeated.

    Of a comparison in which methods failed, and of a sweep in which points did, those are tried again. Raises InputError for any
    other job.
    """
    job = job_of(name)
    with locks.locked(job.lock, _MOMENT if job.state in ACTIVE else _ENDING) as mine:
        if mine is None or not _can_resume(job):
            expected = f"a {', '.join(RESUMABLE)} one or one with failed methods"
            raise InputError(f"job: expected {expected} to resume, got {job.id}, which is {job.state}")
        job.cancel_marker.unlink(missing_ok=True)
        _put_in_queue(job)
    ensure_runner()
    return job


def _can_resume(job: Job) -> bool:
    """As ``Job.resumable``, for who holds the job's lock: then "running" means that the worker died."""
    told = job.told_state
    return told in (*RESUMABLE, State.RUNNING) or (told is State.DONE and job.has_failed_rows)


def _put_in_queue(job: Job) -> None:
    job.journal.append("state", state=State.QUEUED)


def queued(folder: Path) -> list[Job]:
    """The queue, the job that waits longest first."""
    waiting = [job for job in all_jobs(folder) if job.told_state is State.QUEUED]
    return sorted(waiting, key=lambda job: (job.queued_at, job.id))


def ensure_runner() -> None:
    """Start a runner unless one works; it outlives this process, its terminal and its session.

    The runner's lock is taken here and handed over, so that no second runner is started while the first one loads. A runner
    that finds the queue empty looks once more after it has given the lock back: no job is left behind.
    """
    folder = state_folder()
    if not folder.is_dir():
        return
    lock = locks.acquire(folder / RUNNER_LOCK)
    if lock is None:
        return
    try:
        with open(folder / "runner.log", "ab") as log:
            process = start_module("dcmerge.jobs.runner", str(folder), str(lock), log=log, lock=lock, session=True)
    finally:
        os.close(lock)
    # Its end is awaited only so that the system can forget it.
    threading.Thread(target=process.wait, daemon=True).start()


def start_module(module: str, *arguments: str, log: Any, lock: int, session: bool) -> subprocess.Popen[bytes]:
    """``python -m module`` with the lock's descriptor, printing into ``log``, with this package to be found."""
    return subprocess.Popen(
        module_command(module, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment(),
        pass_fds=(lock,),
        start_new_session=session,
    )


def discard_parts(job: Job) -> None:
    """Remove what a killed worker left of a file it was writing. Only for who holds the job's lock."""
    places = [(job.folder / "steps", ".*.part")]
    out = getattr(job.specification, "out", None)
    if out:
        name = Path(out).name[:100].translate({ord(sign): "?" for sign in "[]*"})
        places.append((Path(out).parent, f".{name}.*.part"))
    for folder, pattern in places:
        for path in folder.glob(pattern):
            with suppress(OSError):
                path.unlink()
