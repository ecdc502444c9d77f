"""The queue and the jobs in it: cancel, resume, dead workers, and what may not be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dcmerge import InputError, jobs
from dcmerge.jobs.queue import discard_parts, queued
from dcmerge.jobs.runner import _watch
from dcmerge.runtime import locks
from dcmerge.studies.measuring import Row

SPEC = {"kind": "compare", "set": "demo", "methods": ["ties"], "limit": 1}


def test_a_job_is_found_by_the_beginning_of_its_id(no_runner: None) -> None:
    first, second = jobs.submit(SPEC), jobs.submit(SPEC)
    assert [job.id for job in jobs.all_jobs()] == [second.id, first.id]
    only = os.path.commonprefix([first.id, second.id])
    assert jobs.job(first.id[: len(only) + 1]).specification == first.specification
    for bad in ("", "2", "nope", "..", "/etc"):
        with pytest.raises(InputError, match="expected the id of a job"):
            jobs.job(bad)


def test_folders_that_are_no_jobs_are_passed_over(no_runner: None, folder: Path) -> None:
    job = jobs.submit(SPEC)
    for name, text in (("torn", '{"label": '), ("other", '{"specification": {"kind": "adapt"}}'), ("list", "[]")):
        (folder / name).mkdir()
        (folder / name / "job.json").write_text(text)
    assert [found.id for found in jobs.all_jobs()] == [job.id]


def test_a_job_whose_worker_died_is_interrupted(no_runner: None) -> None:
    job = jobs.submit(SPEC)
    lock = locks.acquire(job.lock)
    job.journal.append("state", state=jobs.State.RUNNING)
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    with subprocess.Popen(command, pass_fds=(lock,), stdout=subprocess.PIPE) as worker:
        worker.stdout.readline()
        os.close(lock)
        assert job.state is jobs.State.RUNNING and not job.resumable
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert job.state is jobs.State.INTERRUPTED and job.resumable
    jobs.resume(job.id)
    assert job.state is jobs.State.QUEUED


def test_the_remaining_time_waits_for_enough_to_judge_by(no_runner: None) -> None:
    job = jobs.submit(SPEC)
    with locks.locked(job.lock):
        job.journal.append("state", state=jobs.State.RUNNING)
        for share in (0.4, 0.41):
            job.journal.append("progress", share=share, text="merging")
        assert job.progress == jobs.Progress(0.41, "merging", None)
        job.journal.append("progress", share=0.7, text="merging")
        assert job.progress.remaining is not None and job.progress.remaining >= 0
        # A later run is judged by its own pace, and the bar does not go back while it begins.
        job.journal.append("state", state=jobs.State.RUNNING)
        assert job.progress.share == 0.7 and job.progress.remaining is None


def test_the_queue_is_in_order_and_a_resumed_job_goes_to_its_end(no_runner: None, folder: Path) -> None:
    first, second, third = (jobs.submit(SPEC) for _ in range(3))
    assert [job.id for job in queued(folder)] == [first.id, second.id, third.id]
    jobs.cancel(second.id)
    jobs.cancel(first.id)
    assert [job.id for job in queued(folder)] == [third.id] and first.state is jobs.State.CANCELLED
    jobs.resume(first.id)
    assert [job.id for job in queued(folder)] == [third.id, first.id] and not first.cancel_marker.exists()


def test_a_job_that_ended_cannot_be_cancelled(no_runner: None) -> None:
    job = jobs.submit(SPEC)
    jobs.cancel(job.id)
    with pytest.raises(InputError, match="which is cancelled"):
        jobs.cancel(job.id)


def test_only_what_did_not_get_to_its_end_can_be_resumed(no_runner: None) -> None:
    job = jobs.submit(SPEC)
    with pytest.raises(InputError, match="which is queued"):
        jobs.resume(job.id)
    with locks.locked(job.lock):
        job.journal.append("state", state=jobs.State.RUNNING)
        with pytest.raises(InputError, match="which is running"):
            jobs.resume(job.id)
    job.journal.append("state", state=jobs.State.DONE)
    with pytest.raises(InputError, match="which is done"):
        jobs.resume(job.id)
    job.finish_step("ties", Row("ties", "TIES", error="no memory"))
    jobs.resume(job.id)
    assert job.state is jobs.State.QUEUED


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "file" / "jobs"))
    with pytest.raises(InputError, match="cannot write the job's folder"):
        jobs.submit(SPEC)


def test_what_a_killed_worker_left_is_removed_and_nothing_else(no_runner: None, small_set: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    job = jobs.submit({"kind": "merge", "set": small_set, "method": "ties", "out": str(out / "m[1].safetensors")})
    (out / ".m[1].safetensors.0123456789abcdef.part").write_bytes(b"half")
    others = [out / "n.safetensors", out / ".n.safetensors.0123.part"]
    for path in others:
        path.write_bytes(b"")
    discard_parts(job)
    assert sorted(out.iterdir()) == sorted(others)


def test_a_worker_that_does_not_listen_is_killed(no_runner: None) -> None:
    job = jobs.submit(SPEC)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as worker:
        worker.stdout.readline()
        job.cancel_marker.touch()
        _watch(job, lambda: worker.poll() is None, worker.send_signal)
    assert worker.returncode == -signal.SIGKILL
