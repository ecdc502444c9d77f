"""The panel of jobs in the sidebar."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dcmerge import jobs
from dcmerge.jobs.queue import RUNNER_LOCK
from dcmerge.runtime import locks
from tests.ui.conftest import Open


@pytest.fixture(autouse=True)
def jobs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Jobs stay in the queue: the test holds the runner's lock."""
    found = tmp_path / "jobs"
    found.mkdir()
    monkeypatch.setenv("DCMERGE_JOBS", str(found))
    with locks.locked(found / RUNNER_LOCK):
        yield found


def test_a_job_can_be_cancelled_and_resumed_on_any_page(open_page: Open, folder: Path) -> None:
    job = jobs.submit({"kind": "compare", "set": "demo", "methods": ["ties"], "limit": 1})
    app = open_page("pages/1_Spectra.py", set=f"folder:{folder.name}")
    assert not app.exception and [e.label for e in app.sidebar.expander] == ["Jobs (1 queued)"]
    app.button(key=f"jobs.cancel.{job.id}").click().run()
    assert job.state is jobs.State.CANCELLED and not app.exception
    app.run()
    assert [e.label for e in app.sidebar.expander] == ["Jobs"]
    app.button(key=f"jobs.resume.{job.id}").click().run()
    assert job.state is jobs.State.QUEUED and not app.exception


def test_progress_is_shown_and_the_controls_stay(open_page: Open, folder: Path) -> None:
    job = jobs.submit({"kind": "compare", "set": "demo", "methods": ["ties"], "limit": 1})
    with locks.locked(job.lock):
        job.journal.append("state", state=jobs.State.RUNNING)
        for share in (0.1, 0.4):
            job.journal.append("progress", share=share, text="TIES: α = 1")
        app = open_page("app.py", set=f"folder:{folder.name}")
        assert not app.exception and [e.label for e in app.sidebar.expander] == ["Jobs (1 running)"]
        assert any("40 % done" in c.value and "left" in c.value for c in app.sidebar.caption)
        assert app.sidebar.selectbox(key="set").value == f"folder:{folder.name}"


def test_a_job_that_is_not_understood_is_shown_as_such(open_page: Open, folder: Path) -> None:
    sound, odd = (jobs.submit({"kind": "compare", "set": "demo", "methods": ["ties"], "limit": 1}) for _ in range(2))
    odd.journal.append("state", state="paused")
    odd.journal.append("progress", share="much")
    app = open_page("app.py", set=f"folder:{folder.name}")
    assert not app.exception and [e.label for e in app.sidebar.expander] == ["Jobs (1 queued)"]
    told = " ".join(caption.value for caption in app.sidebar.caption)
    assert "says paused, which this version does not know" in told and "1 line of its journal" in told
    assert app.button(key=f"jobs.cancel.{sound.id}")
