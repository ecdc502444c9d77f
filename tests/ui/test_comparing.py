"""Comparisons beside the pages: rows as they come, cancel, resume, and what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from dcmerge.comparison import Comparison, Row
from dcmerge.errors import Cancelled, InputError
from dcmerge.model_sets import ModelSet
from dcmerge.ui import comparing
from tests.plots.builders import comparison

SPEC = {"set": "x", "split": "test", "limit": 10, "val_limit": 10, "diagnosed": False,
        "methods": [{"slug": "ties", "parameters": {}}]}  # fmt: skip
MODELS = ModelSet("x", "X", vectors=None)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, comparing.Shown]:
    kept: dict[str, comparing.Shown] = {}
    monkeypatch.setattr(comparing, "_known", lambda: kept)
    return kept


def run_as(monkeypatch: pytest.MonkeyPatch, function: Callable[..., None]) -> list[tuple[Row, ...]]:
    """``function(on_row, cancelled)`` takes the place of the comparison; returns what each call was told to take over."""
    taken: list[tuple[Row, ...]] = []

    def compare(*_: Any, finished: tuple[Row, ...], on_row: Any, cancelled: Any, progress: Any, **__: Any) -> Comparison:
        taken.append(finished)
        progress(0.5, "half")
        function(on_row, cancelled)
        return comparison()

    monkeypatch.setattr(comparing, "compare", compare)
    return taken


def ended(id: str) -> comparing.Shown:
    for _ in range(500):
        if not comparing.find(id).is_running:
            return comparing.find(id)
        time.sleep(0.01)
    raise AssertionError("it never ended")


def test_rows_are_there_as_they_come(monkeypatch: pytest.MonkeyPatch, known: dict) -> None:
    run_as(monkeypatch, lambda on_row, cancelled: [on_row(row) for row in comparison().rows[:2]])
    done = ended(comparing.submit(MODELS, SPEC))
    assert (done.state, done.share, len(done.comparison.rows)) == (comparing.DONE, 0.5, 2) and not done.can_resume
    assert [shown.id for shown in comparing.listed(MODELS)] == [done.id]
    assert comparing.listed(ModelSet("other", "", None)) == []


def test_a_cancelled_one_goes_on_with_its_rows(monkeypatch: pytest.MonkeyPatch, known: dict) -> None:
    def until_cancelled(on_row: Any, cancelled: Any) -> None:
        on_row(comparison().rows[0])
        while not cancelled():
            time.sleep(0.01)
        raise Cancelled

    taken = run_as(monkeypatch, until_cancelled)
    id = comparing.submit(MODELS, SPEC)
    comparing.cancel(id)
    assert ended(id).state == comparing.CANCELLED and ended(id).can_resume
    assert comparing.resume(MODELS, id) == id
    comparing.cancel(id)
    ended(id)
    assert [len(rows) for rows in taken] == [0, 1]


def test_what_fails_says_why(monkeypatch: pytest.MonkeyPatch, known: dict) -> None:
    def fail(*_: Any) -> None:
        raise InputError("no such split")

    run_as(monkeypatch, fail)
    done = ended(comparing.submit(MODELS, SPEC))
    assert (done.state, done.error) == (comparing.FAILED, "no such split")
