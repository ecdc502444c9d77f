"""``python -m dcmerge.jobs.runner``: work the queue off, the oldest job first, each in a process of its own, then end."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from dcmerge.jobs.journal import CANCELLED, FAILED, QUEUED, RUNNING, JobFolder, jobs_folder
from dcmerge.jobs.queue import Job, all_jobs, own_environment

#: So long may a worker take to stop by itself (seconds), and so often somebody looks.
_PATIENCE, _INTERVAL = 1.4, 0.1


def main() -> None:
    with open(jobs_folder() / "queue.lock", "ab") as lock:
        # Waits for another runner: it might have looked for the last time before the job that this one was started for.
        fcntl.flock(lock, fcntl.LOCK_EX)
        while waiting := [one for one in all_jobs() if one.state == QUEUED]:
            _wait_for_running()
            run(waiting[-1].folder)


def _wait_for_running() -> None:
    """A worker may have outlived the runner that started it."""
    while any(one.state == RUNNING for one in all_jobs()):
        time.sleep(_INTERVAL)


def run(folder: JobFolder) -> None:
    """One job to its end, or killed where it does not stop when it is asked to."""
    with open(folder.path / "worker.log", "ab") as log:
        worker = subprocess.Popen([sys.executable, "-m", "dcmerge.jobs.worker", str(folder.path)], env=own_environment(),
                                  start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # fmt: skip
    asked = None
    while worker.poll() is None:
        time.sleep(_INTERVAL)
        if folder.is_asked_to_stop():
            asked = asked or time.monotonic()
            if time.monotonic() - asked > _PATIENCE:
                _kill(worker)
    _conclude(folder, worker)


def _kill(worker: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _conclude(folder: JobFolder, worker: subprocess.Popen) -> None:
    """Say how a worker ended that could not say it itself. One that was killed from outside stays interrupted."""
    found = next(one for one in all_jobs() if one.id == folder.id)
    if folder.is_asked_to_stop() and found.state not in (CANCELLED, FAILED, "done"):
        _remove_parts(found, worker.pid)
        folder.state(CANCELLED)
    elif found.state == QUEUED:
        folder.state(FAILED, error=f"the worker ended before it began (exit code {worker.returncode}); see its log")


def _remove_parts(found: Job, pid: int) -> None:
    """What a killed worker had begun to write: hidden files beside the target that carry its process id."""
    out = found.specification.get("out")
    for folder in filter(None, [found.folder.path / "steps", Path(out).parent if out else None]):
        for part in folder.glob(f".*.{pid}.*part"):
            part.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
