"""Studies in the background: shared, in turn, only while somebody waits; and cards that show them as they grow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

import pytest
import torch
from streamlit.testing.v1 import AppTest

from dcmerge.errors import InputError
from dcmerge.studies.pieces import Piece, Pieces
from dcmerge.ui import background
from dcmerge.ui.background import Background, Filling
from dcmerge.vectors.cache import Budget, Memo, Store
from dcmerge.vectors.task_vectors import TaskVectors
from tests.builders import full_set, random_deltas
from tests.ui.conftest import Open


@pytest.fixture
def vectors(tmp_path: Path) -> TaskVectors:
    found = full_set(tmp_path / "models", random_deltas(2, seed=5))
    found.store = Store(tmp_path / "cache")
    return found


class Looks:
    """What was looked at, and a gate that the looks pass one at a time."""

    def __init__(self, *, open: bool = False) -> None:
        self.made: list[str] = []
        self._gate = threading.Semaphore(1000 if open else 0)

    def let(self, count: int) -> None:
        self._gate.release(count)

    def pieces(self, vectors: TaskVectors, what: str = "", look: Callable[[str], Piece] | None = None) -> Pieces[list[str]]:
        names = tuple(vectors.parameters)[:3]

        def numbers(name: str) -> Piece:
            assert self._gate.acquire(timeout=30)
            self.made.append(what + name)
            return {"n": torch.zeros(1)}

        return Pieces(f"looks {what}", vectors, names, look or numbers, lambda found: [n for n in names if n in found])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def server() -> Iterator[Background]:
    yield Background()


def test_two_visitors_share_one_study(server: Background, vectors: TaskVectors) -> None:
    looks = Looks()
    first = server.filling("key", lambda: looks.pieces(vectors))
    assert server.filling("key", lambda: pytest.fail("made again")) is first
    looks.let(1)
    until(lambda: len(first.found) == 1)
    assert first.so_far() == list(first.names[:1]) and not first.done
    looks.let(2)
    until(lambda: first.done)
    assert first.so_far() == looks.made == list(first.names) and first.share == 1.0


def test_studies_grow_in_turn(server: Background, vectors: TaskVectors) -> None:
    looks = Looks()
    one = server.filling("a", lambda: looks.pieces(vectors, "a"))
    other = server.filling("b", lambda: looks.pieces(vectors, "b"))
    looks.let(6)
    until(lambda: one.done and other.done)
    assert [made[0] for made in looks.made] == ["a", "b", "a", "b", "a", "b"]


def test_nothing_is_found_for_somebody_who_has_left_and_the_next_goes_on(
    server: Background, vectors: TaskVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, now = Looks(), time.monotonic()
    monkeypatch.setattr(background, "PATIENCE", 1e6)
    filling = server.filling("key", lambda: looks.pieces(vectors))
    looks.let(1)
    until(lambda: len(filling.found) == 1)
    monkeypatch.setattr(background, "PATIENCE", now - time.monotonic())  # everybody has left
    looks.let(1)  # the one that is under way
    until(lambda: server.idle)
    assert looks.made == list(filling.names[:2]) and not filling.done
    kept = Filling(looks.pieces(vectors))
    assert len(kept.found) == 2, "what was found is on the disk"
    monkeypatch.setattr(background, "PATIENCE", 1e6)
    assert server.filling("key", lambda: pytest.fail("made again")) is filling
    looks.let(1)
    until(lambda: filling.done)
    assert looks.made == list(filling.names)


def test_a_study_that_is_kept_needs_no_look(server: Background, vectors: TaskVectors) -> None:
    looks = Looks(open=True)
    until(lambda: server.filling("key", lambda: looks.pieces(vectors)).done)
    again = Background().filling("key", lambda: looks.pieces(vectors))
    assert again.done and again.so_far() == looks.made == list(again.names)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("the file changed"), "the file changed"),
        (ZeroDivisionError("a secret"), "This failed unexpectedly: ZeroDivisionError. The terminal shows the details."),
    ],
)
def test_what_goes_wrong_is_told_once_and_tried_again(
    server: Background, vectors: TaskVectors, error: Exception, told: str
) -> None:
    tries: list[str] = []

    def look(name: str) -> Piece:
        tries.append(name)
        raise error

    def make() -> Pieces[list[str]]:
        return Looks().pieces(vectors, look=look)

    failed = server.filling("key", make)
    until(lambda: failed.done)
    assert failed.error == told and len(tries) == 1
    assert server.filling("key", make) is failed
    assert server.filling("key", make) is not failed


def test_what_a_person_waits_for_comes_first(server: Background, vectors: TaskVectors) -> None:
    looks = Looks(open=True)
    with server.first():
        filling = server.filling("key", lambda: looks.pieces(vectors))
        time.sleep(0.05)
        assert not looks.made
    until(lambda: filling.done)


def page_that_grows() -> None:
    import streamlit as st

    from dcmerge.ui.growing import growing
    from tests.ui.test_growing import FILLINGS

    growing(FILLINGS, lambda *found: st.text(f"known: {[one and len(one) for one in found]}"), "Counting")


FILLINGS: list[Filling] = []


def test_a_card_shows_what_is_known_and_how_far_it_is(vectors: TaskVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmerge.ui.growing.WAITED_FOR", 0)
    looks = Looks()
    FILLINGS[:] = [background.BACKGROUND.filling(("test", str(id(looks))), lambda: looks.pieces(vectors))]
    (filling,) = FILLINGS
    looks.let(2)
    until(lambda: len(filling.found) == 2)
    app = AppTest.from_function(page_that_grows, default_timeout=30).run()
    assert not app.exception and [text.value for text in app.text] == ["known: [2]"]
    (bar,) = app.get("progress")
    assert bar.proto.text.startswith("Counting: 2 of 3 matrices") and bar.proto.value == 66
    looks.let(1)
    until(lambda: filling.done)
    app.run()
    assert [text.value for text in app.text] == ["known: [3]"] and not app.get("progress")


def test_a_small_study_is_waited_for(vectors: TaskVectors) -> None:
    looks = Looks(open=True)
    FILLINGS[:] = [background.BACKGROUND.filling(("test", str(id(looks))), lambda: looks.pieces(vectors))]
    app = AppTest.from_function(page_that_grows, default_timeout=30).run()
    assert [text.value for text in app.text] == ["known: [3]"] and not app.get("progress")


def test_a_study_that_failed_is_a_box_and_no_crash(vectors: TaskVectors) -> None:
    def look(name: str) -> Piece:
        raise InputError("*task1* has changed")

    FILLINGS[:] = [background.BACKGROUND.filling(("test", str(id(look))), lambda: Looks().pieces(vectors, look=look))]
    app = AppTest.from_function(page_that_grows, default_timeout=30).run()
    assert not app.exception and [box.value for box in app.error] == ["\\*task1\\* has changed"] and not app.text


@pytest.mark.parametrize(
    ("path", "query", "charts"),
    [
        ("pages/1_Spectra.py", {}, 4),
        ("pages/2_Alignment.py", {}, 6),
        ("pages/7_Diagnose.py", {"diagnose": "Will it merge?"}, 0),
        ("pages/7_Diagnose.py", {"diagnose": "Every matrix"}, 1),
    ],
)
def test_pages_of_large_sets_are_drawn_before_all_is_known(
    folder: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch, path: str, query: dict[str, str], charts: int
) -> None:
    monkeypatch.setattr("dcmerge.ui.growing.WAITED_FOR", 0)
    with background.BACKGROUND.first():  # nothing is found yet
        app = open_page(path, set=f"folder:{folder.name}", **query)
        assert not app.exception and not app.error and len(app.get("plotly_chart")) == charts
        assert all(": 0 of " in bar.proto.text for bar in app.get("progress")) and app.get("progress")
    deadline = time.monotonic() + 60
    while app.get("progress"):
        assert time.monotonic() < deadline
        app.run()
    assert not app.exception and not app.error and len(app.get("plotly_chart")) >= max(1, charts)


def line() -> None:
    from dcmerge.ui.held import memory_line

    memory_line()


def test_the_sidebar_says_what_is_held_where_it_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(max_bytes=8_000_000_000)
    monkeypatch.setattr("dcmerge.ui.held.BUDGET", budget)
    monkeypatch.setattr("dcmerge.ui.held.OPEN", WeakValueDictionary())
    assert not AppTest.from_function(line, default_timeout=30).run().caption
    memo = Memo(budget=budget)
    memo.get("factors", lambda: torch.empty(1).expand(150_000_000))  # nothing as large is allocated
    (told,) = AppTest.from_function(line, default_timeout=30).run().caption
    assert told.value == "Holds 0.6 GB of factors, of at most 8 GB" and "half of the memory" in told.help
