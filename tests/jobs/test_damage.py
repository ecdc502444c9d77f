"""Damage maps as jobs: killed in the middle, resumed, every look taken once, the same map as without a kill."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.evaluation import Scale
from dcmerge.jobs.damaging import map_so_far
from dcmerge.jobs.journal import Journal
from dcmerge.sets.model_sets import open_set_by_name, roots
from dcmerge.studies.damage import Plan
from dcmerge.studies.damage.measuring import damage
from dcmerge.studies.damage.tables import to_data
from tests.jobs.conftest import wait_for_end, wait_until

PLAN = {"slug": "average", "changes": ["base"], "by": "blocks", "limit": 2}


def test_after_a_kill_no_look_is_repeated() -> None:
    job = jobs.submit({"kind": "damage", "set": "demo", "plan": PLAN})
    looks = Journal(job.folder / "looks.jsonl")
    wait_until(lambda: bool(looks.events("look")), "the first look is taken")
    os.kill(job.journal.events("worker")[-1]["pid"], signal.SIGKILL)
    wait_for_end(job)
    if job.state is not jobs.State.DONE:  # the kill came before the end
        jobs.resume(job.id)
        wait_for_end(job)
    assert job.state is jobs.State.DONE, job.log_tail()
    assert set(Counter(event["name"] for event in looks.events("look")).values()) == {1}
    found = map_so_far(job)
    assert found is not None
    bench = open_set_by_name("demo", roots()).images
    fixed = "averaging is α = 1"
    wanted = damage(bench, Plan.of(**PLAN), Scale(1.0, f"fixed: {fixed}"))
    assert to_data(found) == to_data(wanted)


def test_what_no_map_can_be_made_of_is_refused() -> None:
    with pytest.raises(InputError, match="changes: expected some of"):
        jobs.submit({"kind": "damage", "set": "demo", "plan": {**PLAN, "changes": ["up"]}})
    with pytest.raises(InputError, match="got the unknown field 'extra'"):
        jobs.submit({"kind": "damage", "set": "demo", "plan": {**PLAN, "extra": 1}})
