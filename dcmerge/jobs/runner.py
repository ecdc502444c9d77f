"""``python -m dcmerge.jobs.runner FOLDER LOCK``: works the queue of a folder off, one job after another, and ends.

LOCK is the inherited descriptor of the runner's lock. Every job runs in a worker process of its own, which inherits the
job's lock in turn: the lock is free only when both are gone, and so tells everybody whether the job is still being run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dcmerge.jobs.queue import RUNNER_LOCK, discard_parts, queued, start_module
from dcmerge.jobs.record import Job, State, all_jobs
from dcmerge.runtime import locks

_LOOK_EVERY = 0.1
#: Seconds after the cancel marker until the worker is asked, and then made, to stop: together less than two.
_ASK_AFTER, _KILL_AFTER = 0.4, 1.4


def main(folder: Path, lock: int | None) -> None:
    """Work until the queue is empty even after the lock was given back."""
    while lock is not None:
        try:
            _work_off(folder)
        finally:
            os.close(lock)
        # A job that was submitted while this process still held the lock found no reason to start another runner.
        lock = locks.acquire(folder / RUNNER_LOCK) if queued(folder) else None


def _work_off(folder: Path) -> None:
    for job in all_jobs(folder):
        if job.told_state is State.RUNNING:
            _await_orphan(job)
    while waiting := queued(folder):
        _run(waiting[0])


def _await_orphan(job: Job) -> None:
    """See a job to its end whose runner died; the queue holds one job at a time all the same."""

    def send(sent: signal.Signals) -> None:
        pids = [event["pid"] for event in job.journal.events("worker")]
        if pids and locks.held(job.lock):
            with suppress(ProcessLookupError):
                os.kill(pids[-1], sent)

    _watch(job, lambda: locks.held(job.lock), send)
    with locks.locked(job.lock, 1.0) as mine:
        if mine is not None:
            _settle(job, None)


def _run(job: Job) -> None:
    """Run one job to its end in a worker; a job that cannot be claimed was cancelled or is run by somebody else."""
    with locks.locked(job.lock, 1.0) as mine:
        if mine is None:
            time.sleep(_LOOK_EVERY)
            return
        if job.told_state is not State.QUEUED:
            return
        if job.cancel_marker.exists():
            job.journal.append("state", state=State.CANCELLED)
            return
        job.journal.append("state", state=State.RUNNING)
        job.journal.append("progress", share=None, text="starting")
        discard_parts(job)
        with open(job.log_file, "ab") as log:
            process = start_module("dcmerge.jobs.worker", str(job.folder), log=log, lock=mine, session=False)
        _watch(job, lambda: process.poll() is None, process.send_signal)
        _settle(job, process)


def _watch(job: Job, alive: Callable[[], bool], send: Callable[[signal.Signals], None]) -> None:
    """Wait for the end of a worker. Who wants it to stop gets that in time, whatever the worker computes."""
    asked_at: float | None = None
    sent: signal.Signals | None = None
    while alive():
        if asked_at is None and job.cancel_marker.exists():
            asked_at = time.monotonic()
        waited = time.monotonic() - asked_at if asked_at is not None else 0.0
        if waited > _KILL_AFTER and sent != signal.SIGKILL:
            sent = signal.SIGKILL
            send(sent)
        elif waited > _ASK_AFTER and sent is None:
            sent = signal.SIGTERM
            send(sent)
        time.sleep(_LOOK_EVERY)


def _settle(job: Job, process: subprocess.Popen[bytes] | None) -> None:
    """Say how a worker ended that could not say it itself, and remove what it had half written."""
    if job.told_state is State.RUNNING:
        code = process.returncode if process else None
        if job.cancel_marker.exists():
            job.journal.append("state", state=State.CANCELLED)
        elif code is None or code < 0:
            how = f" by signal {-code}" if code else ""
            job.journal.append("state", state=State.INTERRUPTED, text=f"the worker was ended{how}")
        else:
            text = f"the worker ended with code {code}; the end of its log says why"
            job.journal.append("state", state=State.FAILED, text=text)
    if job.told_state is not State.DONE:
        discard_parts(job)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
