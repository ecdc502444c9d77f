"""Work beside the page: what it leaves behind, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dcmerge.errors import Cancelled, InputError
from dcmerge.ui.work import Work


def test_a_result_is_kept() -> None:
    work = Work("Adding")
    work.run(lambda progress, cancelled: 1 + 1)
    assert (work.done, work.result, work.error) == (True, 2, "")


def test_progress_is_told_and_never_exceeds_the_whole() -> None:
    work, seen = Work("Counting"), []

    def count(progress: Callable[[float, str], None], cancelled: Callable[[], bool]) -> None:
        for share in (0.25, 1.5):
            progress(share, f"at {share}")
            seen.append((work.share, work.text))

    work.run(count)
    assert seen == [(0.25, "at 0.25"), (1.0, "at 1.5")]


def test_cancelled_work_says_so() -> None:
    work = Work("Searching")

    def search(progress: Any, cancelled: Callable[[], bool]) -> None:
        work.cancel.set()
        if cancelled():
            raise Cancelled

    work.run(search)
    assert work.done and work.result is None
    assert work.error == "Searching: cancelled, nothing was changed."


def test_what_the_user_can_mend_is_said_in_its_own_words() -> None:
    def refuse(progress: Any, cancelled: Any) -> None:
        raise InputError("rho: expected a number of at least 1, got 0")

    work = Work("Merging")
    work.run(refuse)
    assert work.done and work.error == "rho: expected a number of at least 1, got 0"


def test_what_nobody_foresaw_is_named_and_left_to_the_terminal() -> None:
    def fail(progress: Any, cancelled: Any) -> None:
        raise ZeroDivisionError("a secret path")

    work = Work("Merging")
    with pytest.raises(ZeroDivisionError):
        work.run(fail)
    assert work.done and "ZeroDivisionError" in work.error and "secret" not in work.error


def page_with_work() -> None:
    import time

    import streamlit as st

    from dcmerge.ui import work

    def wait(progress: object, cancelled: object) -> str:
        progress(0.5, "half")
        deadline = time.monotonic() + 30
        while not (cancelled() or st.session_state.get("enough")) and time.monotonic() < deadline:
            time.sleep(0.01)
        return "the result"

    st.button("Start", on_click=work.start, args=("job", "Waiting", wait))
    done = work.finished("job")
    if done:
        st.text(done.result)
    st.caption("busy" if work.running("job") else "idle")
    work.watch("job")


def test_work_starts_shows_progress_is_cancelled_and_hands_its_result_out_once() -> None:
    app = AppTest.from_function(page_with_work, default_timeout=30).run()
    assert app.caption[0].value == "idle"
    app.button[0].click().run()
    assert app.caption[0].value == "busy"
    job = app.session_state["job"]
    cancel = next(button for button in app.button if button.label == "Cancel")
    cancel.click()
    job.cancel.set()  # the click arrives with the next run; the work must not outlive this test if it does not
    while not job.done:
        job.cancel.wait(0.01)
    app.run()
    assert [text.value for text in app.text] == ["the result"]
    app.run()
    assert not app.text and app.caption[0].value == "idle"
