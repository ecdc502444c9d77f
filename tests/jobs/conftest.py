"""Jobs of one test in a folder of their own, and a way to wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dcmerge import jobs
from dcmerge.jobs.record import FOLDER_VARIABLE

#: Far beyond what any of these jobs takes: a test that waits so long has failed.
PATIENCE = 240
#: A comparison of seconds on the demo.
QUICK = {"kind": "compare", "set": "demo", "limit": 4, "val_limit": 2, "methods": ["ties"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "jobs"))
    return tmp_path / "jobs"


def until(condition: Callable[[], bool]) -> None:
    """Wait for it; fails where it never comes."""
    for _ in range(10 * PATIENCE):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("it never came")


def ended(id: str) -> jobs.Job:
    until(lambda: jobs.job(id).state not in jobs.ACTIVE)
    return jobs.job(id)
