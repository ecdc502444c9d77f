"""Find α and Evaluate as jobs: what the library finds, told as it goes, kept step by step."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from dcmerge import jobs, merge
from dcmerge.errors import InputError
from dcmerge.evaluation import choose_scale
from dcmerge.runs import RunStore, SetId
from dcmerge.sets.model_sets import open_set_by_name, roots
from dcmerge.studies.tells.proposing import scale_without_labels
from dcmerge.vectors.mix import Mix
from tests.jobs.conftest import wait_for_end, wait_until

FIND = {"kind": "scale", "set": "demo", "method": "task_arithmetic", "val_limit": 2}
EVALUATE = {"kind": "evaluate", "set": "demo", "method": "ties", "parameters": {"density": 0.3}, "scale": 0.5, "limit": 2}


def shares(job: jobs.Job) -> list[float]:
    return [event["share"] for event in job.journal.events("progress") if event["share"] is not None]


def test_the_search_finds_what_the_library_finds() -> None:
    job = wait_for_end(jobs.submit(FIND))
    assert job.state is jobs.State.DONE, job.log_tail()
    demo = open_set_by_name("demo", roots())
    wanted = choose_scale(demo.images, merge(demo.vectors, "task_arithmetic").deltas, limit=2)
    assert job.scale() == wanted and job.set_hash() == SetId.of(demo.vectors, "demo").hash
    told = [event["text"] for event in job.journal.events("progress")]
    assert any("experts" in text for text in told), told  # the experts' row is part of the bar
    assert shares(job) == sorted(shares(job)) and job.progress == jobs.Progress(1.0)


def test_the_search_without_labels_finds_what_the_library_finds() -> None:
    job = wait_for_end(jobs.submit({**FIND, "method": "average", "labels": False}))
    assert job.state is jobs.State.DONE, job.log_tail()
    demo = open_set_by_name("demo", roots())
    wanted = scale_without_labels(demo.images, merge(demo.vectors, "average"), limit=2, keep_fixed=False)
    assert job.scale() == wanted and len(wanted.curve) > 8  # who asks gets a search, though averaging keeps α at 1
    assert list(job.steps()) == ["set", "scale"] and job.label == "Find α of Weight averaging on demo without labels"
    assert shares(job) == sorted(shares(job))


def test_an_evaluation_measures_base_experts_and_merge_and_keeps_them_as_runs() -> None:
    job = wait_for_end(jobs.submit(EVALUATE))
    assert job.state is jobs.State.DONE, job.log_tail()
    demo = open_set_by_name("demo", roots())
    merged = merge(demo.vectors, "ties", density=0.3)
    wanted = demo.images.evaluate(merged.model(demo.images, 0.5), "ties", limit=2)
    found = job.rows()
    assert list(found) == ["zero-shot", "experts", "merged"]
    assert found["merged"].measured.to_dict() == wanted.to_dict()
    assert found["zero-shot"].measured.mean == demo.images.zero_shot(limit=2).mean
    runs = {run.method: run for run in RunStore().find(group=job.id)}
    assert set(runs) == {"zero-shot", "experts", "ties"} and runs["ties"].evaluation.mean == wanted.mean
    assert (runs["ties"].kind, runs["ties"].alpha, runs["ties"].values["density"]) == ("evaluation", 0.5, 0.3)
    assert shares(job) == sorted(shares(job)) and jobs.job(job.id).comparison() is None


def test_search_and_evaluation_take_the_mix() -> None:
    mix = {"weights": {"letters": 3.0}, "depth": [0.5, 1.0]}
    search, look = jobs.submit({**FIND, "mix": mix}), jobs.submit({**EVALUATE, "mix": mix})
    demo = open_set_by_name("demo", roots())
    mixed = demo.mixed(Mix.from_data(mix))
    assert mixed.key != demo.key and mixed.mixed(Mix()).key == demo.key
    wanted = choose_scale(demo.images, merge(mixed.vectors, "task_arithmetic").deltas, limit=2)
    assert wait_for_end(search).scale() == wanted and search.set_hash() == SetId.of(mixed.vectors, "demo").hash
    expected = demo.images.evaluate(merge(mixed.vectors, "ties", density=0.3).model(demo.images, 0.5), "ties", limit=2)
    assert wait_for_end(look).rows()["merged"].measured.to_dict() == expected.to_dict()
    runs = {run.method: run for run in RunStore().find(group=look.id)}
    assert runs["ties"].mix_text == "weights letters 3; α over depth linear:0.5:1" and not runs["experts"].mix_text


def test_after_a_kill_no_step_is_repeated() -> None:
    job = jobs.submit({**EVALUATE, "limit": 60})
    wait_until(lambda: "experts" in job.steps(), "the experts are measured")
    os.kill(job.journal.events("worker")[-1]["pid"], signal.SIGKILL)
    wait_for_end(job)
    jobs.resume(job.id)
    wait_for_end(job)
    assert job.state is jobs.State.DONE, job.log_tail()
    assert Counter(event["name"] for event in job.journal.events("step")) == dict.fromkeys(job.specification.steps, 1)
    assert len(RunStore().find(group=job.id)) == 3


@pytest.mark.usefixtures("no_runner")
def test_what_is_submitted_is_read_again() -> None:
    find, evaluate = jobs.submit(FIND), jobs.submit(EVALUATE)
    for job in (find, evaluate):
        assert jobs.job(job.id).specification == job.specification
        assert jobs.specification(jobs.to_data(job.specification)) == job.specification
    assert find.label == "Find α of Task Arithmetic on demo" and evaluate.label == "Evaluate TIES-Merging on demo, test images"
    assert find.scale() is None and find.set_hash() == "" and evaluate.rows() == {}


@pytest.mark.usefixtures("no_runner")
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({**FIND, "set": "nowhere"}, "set"),
        ({**FIND, "method": "tiez"}, "tiez"),
        ({**FIND, "val_limit": 0}, "val_limit"),
        ({**FIND, "scale": 1.0}, "scale"),
        ({**FIND, "labels": "no"}, "labels: expected true or false"),
        ({**FIND, "method": "emr", "labels": False}, "labels: expected a method that gives one model for all tasks"),
        ({**EVALUATE, "scale": float("nan")}, "scale"),
        ({**EVALUATE, "split": "train"}, "split"),
        ({**EVALUATE, "scale_origin": ""}, "scale_origin"),
        ({**EVALUATE, "parameters": {"density": 7}}, "density"),
        ({**EVALUATE, "limit": True}, "limit"),
    ],
)
def test_what_could_not_run_is_refused(spec: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        jobs.submit(spec)
    assert jobs.all_jobs() == []


@pytest.mark.usefixtures("no_runner")
def test_a_set_without_images_is_refused(small_set: str) -> None:
    with pytest.raises(InputError, match="tasks to evaluate on"):
        jobs.submit({**FIND, "set": small_set})
