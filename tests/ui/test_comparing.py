"""Comparisons as the Compare page sees them: made from jobs on disk, without a worker here."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.jobs import queue
from dcmerge.sets.model_sets import ModelSet
from dcmerge.ui import comparing
from tests.plots.builders import comparison

SPEC = {
    "kind": "compare",
    "set": "demo",
    "methods": [{"slug": "ties", "parameters": {"density": 0.5}}],
    "split": "test",
    "limit": 10,
    "val_limit": 10,
    "diagnosed": True,
}
DEMO = ModelSet("demo", "Demo", vectors=None)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path))
    monkeypatch.setattr(queue, "ensure_runner", lambda: None)
    return tmp_path


def test_a_waiting_comparison_and_one_with_rows() -> None:
    id = comparing.submit(SPEC)
    waiting = comparing.find(id)
    assert waiting.is_running and waiting.text == "waiting for an earlier job" and waiting.comparison is None
    assert list(comparing.listed(DEMO)) == [id] and "10 images a task" in comparing.listed(DEMO)[id]
    assert comparing.listed(ModelSet("demo-lora", "", vectors=None)) == {}
    wanted = comparison()
    for row in wanted.rows[:3]:
        jobs.job(id).finish_step(row.name, row)
    found = comparing.find(id).comparison
    assert [row.name for row in found.rows] == ["zero-shot", "average", "ties"]
    assert found.row("ties").drift == wanted.row("ties").drift and found.row("ties").dirsim == wanted.row("ties").dirsim
    assert found.row("average").peak_bytes == 3 << 20


def test_cancel_and_resume_and_what_comes_too_late() -> None:
    id = comparing.submit(SPEC)
    comparing.cancel(id)
    assert comparing.find(id).state == "cancelled" and comparing.find(id).can_resume
    comparing.cancel(id)
    comparing.resume(id)
    comparing.resume(id)
    assert comparing.find(id).state == "queued"


def test_an_unknown_one_and_a_bad_one() -> None:
    assert comparing.find("none") is None
    with pytest.raises(InputError, match="limit"):
        comparing.submit({**SPEC, "limit": 0})
