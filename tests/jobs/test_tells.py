"""Studies of what tells as jobs: killed in the middle, resumed, every merge made once, and added to by a larger plan."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Any

import pytest

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.jobs.journal import Journal
from dcmerge.jobs.telling import kept_of, known_looks, name_of, study_of
from dcmerge.runtime.state_files import jobs_folder
from dcmerge.sets.model_sets import open_set_by_name, roots
from dcmerge.studies.tells import Plan
from dcmerge.studies.tells.forecast import predicted_seconds
from dcmerge.studies.tells.measuring import looks
from tests.jobs.conftest import wait_for_end, wait_until

PLAN: dict[str, Any] = {
    "methods": ("average", "task_arithmetic", "ties"),
    "factors": (0.5, 1.0),
    "merges": 4,
    "limit": 2,
    "unlabeled": 2,
}


def test_after_a_kill_no_merge_is_repeated_and_a_larger_plan_adds_to_them() -> None:
    demo, plan = open_set_by_name("demo", roots()), Plan.of(**PLAN)
    journal = Journal(jobs_folder() / "tells" / f"{name_of(demo.vectors, plan)}.jsonl")
    job = jobs.submit({"kind": "tells", "set": "demo", "plan": PLAN})
    wait_until(lambda: bool(journal.events("look")) or job.state not in jobs.ACTIVE, "the first merge is measured")
    os.kill(job.journal.events("worker")[-1]["pid"], signal.SIGKILL)
    wait_for_end(job)
    if job.state is not jobs.State.DONE:  # the kill came before the end
        (kept,) = kept_of(demo.vectors)
        assert not kept.ended and 1 <= kept.merges < 4
        jobs.resume(job.id)
        wait_for_end(job)
    assert job.state is jobs.State.DONE, job.log_tail()
    larger = wait_for_end(jobs.submit({"kind": "tells", "set": "demo", "plan": {**PLAN, "merges": 5}}))
    assert larger.state is jobs.State.DONE and larger.steps()["study"]["merges"] == 5
    assert Counter(event["setting"]["number"] for event in journal.events("look")) == dict.fromkeys(range(5), 1)
    (kept,) = kept_of(demo.vectors)
    assert kept.ended and kept.merges == 5
    wanted = looks(demo.images, Plan.of(**{**PLAN, "merges": 5}))
    told, before = study_of(larger), study_of(job)
    assert told and before and len(told.looks) == 5 and len(before.looks) == 4
    assert [(look.setting, look.rows) for look in kept.study().looks] == [(look.setting, look.rows) for look in wanted]


def test_what_is_made_already_takes_no_time() -> None:
    demo, plan = open_set_by_name("demo", roots()), Plan.of(**PLAN)
    whole = predicted_seconds(plan, demo.images, 0.001, 1000.0, {})
    made = {look.setting.number: look for look in looks(demo.images, Plan.of(**{**PLAN, "merges": 3}))}
    some = predicted_seconds(plan, demo.images, 0.001, 1000.0, made)
    assert (whole[0], some[0]) == (4, 1) and some[1] < whole[1]
    assert predicted_seconds(Plan.of(**{**PLAN, "merges": 3}), demo.images, 0.001, 1000.0, made)[0] == 0


@pytest.mark.usefixtures("no_runner")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ["tiez"]}, "got 'tiez'"),
        ({"methods": "ties"}, "methods: expected a list of slugs, got 'ties'"),
        ({"factors": ["much"]}, "factors: expected a list of numbers"),
        ({"merges": 2}, "merges: expected an integer of at least 3"),
        ({"subsets": "yes"}, "subsets: expected true or false"),
        ({"extra": 1}, "got the unknown field 'extra'"),
    ],
)
def test_what_no_study_can_be_made_of_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        jobs.submit({"kind": "tells", "set": "demo", "plan": {**PLAN, **change}})
    assert jobs.all_jobs() == []


@pytest.mark.usefixtures("no_runner")
def test_what_is_submitted_is_read_again() -> None:
    job = jobs.submit({"kind": "tells", "set": "demo", "plan": PLAN})
    assert jobs.job(job.id).specification == job.specification == jobs.Tells("demo", Plan.of(**PLAN))
    assert job.label == "What tells on demo: 4 merges"
    demo = open_set_by_name("demo", roots())
    assert known_looks(demo.vectors, Plan.of(**PLAN)) == {} and kept_of(demo.vectors) == []
