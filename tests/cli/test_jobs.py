"""Jobs on the command line: the same ones as in the library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dcmerge import jobs
from dcmerge.jobs.queue import RUNNER_LOCK
from dcmerge.runtime import locks
from dcmerge.studies.measuring import Row
from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This test's jobs, which stay in the queue: the test holds the runner's lock."""
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path))
    with locks.locked(tmp_path / RUNNER_LOCK):
        yield tmp_path


@pytest.fixture
def job() -> jobs.Job:
    return jobs.submit({"kind": "compare", "set": "demo", "methods": ["ties", "knots"], "limit": 3})


def test_no_jobs(run: Run, folder: Path) -> None:
    assert run("jobs").out.strip() == f"no jobs in {folder}"
    assert run("jobs", "list", "--json").json == {"folder": str(folder), "jobs": []}


def test_list_cancel_resume(run: Run, job: jobs.Job) -> None:
    assert job.id in run("jobs").out and "queued" in run("jobs", "list").out
    assert run("jobs", "cancel", job.id[:-1], "--json").json["state"] == "cancelled"
    assert run("jobs", "list", "--json").json["jobs"][0]["state"] == "cancelled"
    assert run("jobs", "resume", job.id).out == f"{job.id} is queued\n"
    run("jobs", "resume", job.id).assert_refused("which is queued")


def test_show_tells_specification_steps_and_log(run: Run, job: jobs.Job) -> None:
    job.finish_step("knots", Row("knots", "KnOTS-TIES", error="needs LoRA experts"))
    job.log_file.write_text("hello\x1b[2J\n")
    out = run("jobs", "show", job.id).out
    for words in ("queued", "limit 3", "ties (density 0.2", "1 of 5 steps", "knots failed: needs LoRA", "hello\\x1b"):
        assert words in out, (words, out)
    shown = run("jobs", "show", job.id, "--json").json
    assert shown["specification"]["limit"] == 3 and shown["finished_steps"] == ["knots"] and shown["comparison"] is None


@pytest.mark.parametrize("action", ["show", "cancel", "resume"])
def test_bad_ids(run: Run, job: jobs.Job, action: str) -> None:
    run("jobs", action).assert_refused("expected the id of a job")
    run("jobs", action, "nope").assert_refused("'nope'", "no id begins")
    jobs.submit(job.specification)
    run("jobs", action, "2").assert_refused("2 ids begin")


def test_other_mistakes(run: Run) -> None:
    run("jobs", "start").assert_refused("start")
    run("jobs", "list", "x").assert_refused("no id")


@pytest.mark.usefixtures("tiny_zoo")
def test_a_comparison_in_the_background(run: Run) -> None:
    found = run("compare", "--zoo", "demo", "--methods", "ties,dc_merge", "--quick", "--background")
    job = jobs.job(found.out.strip())
    assert job.state is jobs.State.QUEUED and (job.specification.limit, job.specification.val_limit) == (40, 40)
    run("compare", "--zoo", "demo", "--methods", "tiez", "--background").assert_refused("tiez")


@pytest.mark.usefixtures("tiny_zoo")
def test_an_evaluation_in_the_background(run: Run) -> None:
    how = ["--zoo=demo", "--method=ties", "--set=density=0.3", "--background"]
    spec = jobs.job(run("evaluate", *how, "--scale=0.5", "--limit=4").out.strip()).specification
    assert (spec.kind, spec.set, spec.method.parameters["density"], spec.scale) == ("evaluate", "demo", 0.3, 0.5)
    assert (spec.split, spec.limit, spec.val_limit) == ("test", 4, 4)
    found = jobs.job(run("evaluate", *how, "--split=val", "--json").json["id"])
    assert (found.specification.scale, found.specification.split, found.specification.limit) == (None, "val", None)
    for words in ("evaluate on demo", "val split", "α chosen by the job", "density 0.3"):
        assert words in run("jobs", "show", found.id).out
    run("evaluate", "--zoo=demo", "--background", "--checkpoint=x").assert_refused("--background", "--checkpoint")
    run("evaluate", "--zoo=demo", "--method=opcm", "--by-step", "--background").assert_refused("--background", "--by-step")
    run("evaluate", "--background", "--method=ties", "--from=x").assert_refused("--background", "--from")
    assert len(jobs.all_jobs()) == 2


def test_a_merge_in_the_background_is_what_the_command_would_do(run: Run, models: list[str], folder: Path) -> None:
    out = folder / "m.safetensors"
    how = ["--zoo=demo", "--method=dc_merge", "--set=rho=2", "--out", out, "--background"]
    job = jobs.job(run("merge", *how).out.strip())
    spec = job.specification
    assert job.state in jobs.ACTIVE and (spec.set, spec.out, spec.method.parameters["rho"]) == ("demo", str(out), 2)
    assert (spec.scale, spec.scale_origin) == (1.0, "the method's usual α for this set")
    assert run("merge", *how, "--scale=0.5", "--scale-origin=x", "--delta-only", "--json").json["label"] == job.label
    last = next(one.specification for one in jobs.all_jobs() if one.id != job.id)
    assert (last.scale, last.scale_origin, last.delta_only) == (0.5, "x", True)
    more = ["--dtype=bfloat16", "--qkv=split", "--weights=task0=2", "--card", "--force", "--recipe", folder / "r.yaml", "--json"]
    own = jobs.job(run("merge", *models, "--method=average", "--out", out, "--background", *more).json["id"]).specification
    assert isinstance(own, jobs.Merge) and own.models is not None and set(own.models.experts) == {"task0", "task1", "task2"}
    assert (own.dtype, own.qkv, own.mix, own.card, own.replace) == ("bfloat16", "split", {"weights": {"task0": 2.0}}, True, True)
    run("merge", *models, "--method=average", "--out", folder / "x.pt", "--background").assert_refused("out: expected")
    assert len(jobs.all_jobs()) == 3
