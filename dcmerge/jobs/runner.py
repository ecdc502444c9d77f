"""``python -m dcmerge.jobs.runner FOLDER LOCK``: works the queue of a folder off, one job after another, and ends.

LOCK is the inherited descriptor of the runner's lock. Every job runs in a worker process of its own, which inherits the
job's lock in turn: the lock is free only when both are gone, and so tells everybody whether the job is still being run.

A worker is a fork of the runner where that is safe: all is imported then, which takes seconds. The runner computes nothing,
so no thread of it is at work in that moment.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dcmerge.jobs import worker
from dcmerge.jobs.queue import RUNNER_LOCK, discard_parts, queued, start_module
from dcmerge.jobs.record import Job, State, all_jobs
from dcmerge.runtime import locks

_LOOK_EVERY = 0.1
#: Seconds after the cancel marker until the worker is asked, and then made, to stop: together less than two.
_ASK_AFTER, _KILL_AFTER = 0.4, 1.4
#: macOS has libraries that do not survive a fork, Windows has none.
_FORKS = sys.platform == "linux"


@dataclass(frozen=True)
class _Worker:
    """A process that runs a job: whether it lives, a way to signal it, and its exit code (a signal's is negative)."""

    alive: Callable[[], bool]
    send: Callable[[signal.Signals], None]
    code: Callable[[], int | None]


def main(folder: Path, lock: int | None) -> None:
    """Work until the queue is empty even after the lock was given back."""
    while lock is not None:
        try:
            _work_off(folder, lock)
        finally:
            os.close(lock)
        # A job that was submitted while this process still held the lock found no reason to start another runner.
        lock = locks.acquire(folder / RUNNER_LOCK) if queued(folder) else None


def _work_off(folder: Path, lock: int) -> None:
    for job in all_jobs(folder):
        if job.told_state is State.RUNNING:
            _await_orphan(job)
    while waiting := queued(folder):
        _run(waiting[0], lock)


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


def _run(job: Job, lock: int) -> None:
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
        process = _forked(job, lock) if _FORKS else _started(job, mine)
        _watch(job, process.alive, process.send)
        _settle(job, process.code())


def _forked(job: Job, lock: int) -> _Worker:
    process = multiprocessing.get_context("fork").Process(target=_work, args=(job, lock))
    process.start()

    def send(sent: signal.Signals) -> None:
        if process.pid and process.is_alive():
            os.kill(process.pid, sent)

    return _Worker(process.is_alive, send, lambda: process.exitcode)


def _work(job: Job, lock: int) -> None:
    """In the worker: print into the job's log, and leave the runner's lock to the runner."""
    os.close(lock)
    with open(job.log_file, "ab") as log:
        for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(log.fileno(), descriptor)
    worker.main(job.folder)


def _started(job: Job, lock: int) -> _Worker:
    with open(job.log_file, "ab") as log:
        process = start_module("dcmerge.jobs.worker", str(job.folder), log=log, lock=lock, session=False)
    return _Worker(lambda: process.poll() is None, process.send_signal, lambda: process.returncode)


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


def _settle(job: Job, code: int | None) -> None:
    """Say how a worker ended that could not say it itself, and remove what it had half written."""
    if job.told_state is State.RUNNING:
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
