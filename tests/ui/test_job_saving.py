"""The Merge page saves on this machine as a job, below the roots alone, and shows what was read again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.ui.job_saving import _target
from tests.ui.conftest import Open

MERGE = "pages/3_Merge.py"


def test_a_save_is_a_job_whose_check_is_shown(folder: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMERGE_JOBS", str(folder.parent.parent / "jobs"))
    app = open_page(MERGE, set=f"folder:{folder.name}", method="average")
    app.text_input(key="save.name").set_value("mine").run()
    app.button(key="save.job").click().run()
    assert not app.exception and not app.error
    job = jobs.all_jobs()[0]
    deadline = time.monotonic() + 120
    while job.state in jobs.ACTIVE and time.monotonic() < deadline:
        time.sleep(0.2)
    assert job.state is jobs.State.DONE, job.log_tail()
    assert set(load_file(folder.parent / "merged" / "mine.safetensors")) == set(load_file(folder / "base.safetensors"))
    app.run()
    assert any("nothing is off" in box.value for box in app.success)
    app.button(key="save.job").click().run()
    assert "exists already" in app.error[0].value


@pytest.mark.parametrize("name", ["", ".safetensors", "../x", "a/b", ".hidden", "a\0b", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(name: str, folder: Path) -> None:
    with pytest.raises(InputError, match="name: expected"):
        _target(str(folder), name)


def test_only_below_the_roots(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    with pytest.raises(InputError, match="folder: expected"):
        _target(str(other), "x.safetensors")
    (folder / "link").symlink_to(other)
    with pytest.raises(InputError, match="folder: expected"):
        _target(str(folder / "link"), "x.safetensors")
    assert not list(other.iterdir())
