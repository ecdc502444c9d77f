"""Real jobs on the demo: queued, run once, cancelled, killed and resumed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from dcmerge import InputError, jobs
from dcmerge.checkpoints import open_checkpoint
from dcmerge.jobs import State
from tests.jobs.conftest import QUICK, ended, until

LONG = {**QUICK, "limit": None, "val_limit": None, "methods": ["ties", "tsv_m", "iso_c", "dc_merge"]}


def finished_steps(found: jobs.Job) -> Counter:
    return Counter(event["name"] for event in found.journal.events("step"))


def worker_of(found: jobs.Job) -> int:
    """The process id of a job's worker."""
    return found.journal.events("worker")[-1]["pid"]


def started(found: jobs.Job, step: str = "") -> None:
    """Wait until it runs, or has finished a step."""
    until(lambda: found.state is not State.QUEUED and (not step or step in finished_steps(found)))


def test_a_comparison_runs_once_to_its_end() -> None:
    found = ended(jobs.submit(QUICK).id)
    assert (found.state, found.progress.share, found.error) == (State.DONE, 1.0, "")
    assert finished_steps(found) == {"zero-shot": 1, "average": 1, "ties": 1, "experts": 1}
    assert [row.name for row in found.comparison().rows] == ["zero-shot", "average", "ties", "experts"]
    assert found.comparison().row("ties").difference is not None
    assert not found.resumable and any("TIES" in line for line in found.log_tail())


def test_jobs_run_one_after_the_other_in_the_order_they_came() -> None:
    ids = [jobs.submit(QUICK).id for _ in range(3)]
    for id in ids:
        assert ended(id).state == State.DONE
    spans = []
    for id in ids:
        states = {event["state"]: event["time"] for event in jobs.job(id).journal.events("state")}
        spans.append((states["running"], states["done"]))
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:], strict=False))
    assert {one.id for one in jobs.all_jobs()} == set(ids)


def test_one_method_that_fails_leaves_the_others() -> None:
    methods = ["knots", "ties"]  # KnOTS merges adapters alone
    found = ended(jobs.submit({**QUICK, "methods": methods}).id)
    assert found.state == State.DONE and found.resumable
    assert "needs LoRA experts" in found.comparison().row("knots").error
    assert found.comparison().row("ties").evaluation


def test_a_cancelled_job_keeps_what_it_has_finished() -> None:
    found = jobs.submit(LONG)
    started(found, "zero-shot")
    jobs.cancel(found.id)
    until(lambda: jobs.job(found.id).state == State.CANCELLED)
    assert "zero-shot" in found.rows()
    assert not list((found.folder / "steps").glob(".*"))


def test_a_job_that_waits_is_cancelled_before_it_begins() -> None:
    first, second = jobs.submit(LONG), jobs.submit(QUICK)
    assert jobs.cancel(second.id).state == State.CANCELLED
    started(first)
    jobs.cancel(first.id)
    assert ended(first.id).state == State.CANCELLED
    assert not finished_steps(second)


def test_after_a_kill_it_goes_on_and_repeats_nothing() -> None:
    found = jobs.submit({**QUICK, "methods": ["ties", "iso_c"]})
    started(found, "average")
    os.kill(worker_of(found), signal.SIGKILL)
    until(lambda: jobs.job(found.id).state == State.INTERRUPTED)
    jobs.resume(found.id)
    assert ended(found.id).state == State.DONE
    assert finished_steps(found) == {"zero-shot": 1, "average": 1, "ties": 1, "iso_c": 1, "experts": 1}


def test_a_merge_is_written_whole(tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    found = ended(jobs.submit({"kind": "merge", "set": "demo", "method": "ties", "scale": 0.5, "out": str(out)}).id)
    assert found.state == State.DONE and open_checkpoint(out).metadata["content"] == "model"
    assert found.steps()["scale"]["value"] == 0.5 and list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "dance"}, "kind: expected one of compare, merge, got 'dance'"),
        ({"set": "none"}, "set: expected one of demo"),
        ({"methods": []}, "methods: expected a list of at least one method"),
        ({"methods": ["none"]}, "method: expected one of"),
        ({"methods": [{"slug": "ties", "parameters": {"density": 7}}]}, "density: expected"),
        ({"limit": 0}, "limit: expected at least 1 image"),
        ({"split": "train"}, "split: expected one of test, val"),
        ({"colour": "red"}, "colour"),
        ({"kind": "merge", "methods": "ties"}, "methods"),
    ],
)
def test_a_bad_specification_is_refused_before_it_is_queued(change: dict, reason: str, folder: Path) -> None:
    with pytest.raises(InputError, match=reason):
        jobs.submit({**QUICK, **change})
    assert not jobs.all_jobs()


def test_ids_are_found_by_their_beginning() -> None:
    found = jobs.submit(QUICK)
    assert jobs.job(found.id[:-1]).id == found.id
    for wrong in ("", "nothing", found.id + "x"):
        with pytest.raises(InputError, match="expected the id of a job"):
            jobs.job(wrong)
    ended(found.id)
    with pytest.raises(InputError, match="expected a queued or running one to cancel"):
        jobs.cancel(found.id)
    with pytest.raises(InputError, match="to resume, got"):
        jobs.resume(found.id)
