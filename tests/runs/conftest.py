"""A store of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge.runs import RunStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "state"))
    return RunStore()
