"""What every page draws of a job: its bar, the buttons that cancel it and go on with it, and why a click did nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.ui.text import duration, plain


def job_or_none(id: str) -> jobs.Job | None:
    """The job of that id; None where it has been removed."""
    try:
        return jobs.job(id)
    except InputError:
        return None


def bar(job: jobs.Job, text: str) -> None:
    """How far it is."""
    st.progress(min(1.0, job.progress.share), text=plain(text))


def progress_text(job: jobs.Job) -> str:
    """What it does now and how long that takes, or that it waits."""
    if job.state is jobs.State.QUEUED:
        return "waiting for an earlier job"
    remaining = job.progress.remaining
    return job.progress.text + (f", about {duration(remaining)} left" if remaining is not None else "")


def cancel_button(job: jobs.Job, *, key: str, note: str, label: str = "Cancel", **look: Any) -> None:
    """It can be clicked once. ``note``: where ``refused`` finds why a click did nothing."""
    disabled = job.cancel_marker.exists()
    icon = ":material/cancel:"
    st.button(label, key=key, icon=icon, disabled=disabled, on_click=act, args=(jobs.cancel, job.id, note), **look)


def resume_button(job: jobs.Job, *, key: str, note: str, **look: Any) -> None:
    """Goes on with what is not finished."""
    st.button("Resume", key=key, icon=":material/resume:", on_click=act, args=(jobs.resume, job.id, note), **look)


def act(action: Callable[[str], Any], id: str, note: str) -> None:
    """For a button; somebody else may have done it before, or removed the job."""
    try:
        action(id)
    except InputError as error:
        st.session_state[note] = str(error)


def refused(note: str) -> str:
    """Why the last click did nothing; told once."""
    return st.session_state.pop(note, "")


def start_row(
    label: str,
    on_click: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    how_long: Callable[[], str] | None,
    problem: str,
    note: str,
) -> None:
    """The button that starts a job, beside it how long that takes, below it why it cannot be started, or was not.

    ``how_long`` is None where there is nothing that could be started.
    """
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            label,
            type="primary",
            icon=":material/play_arrow:",
            disabled=how_long is None,
            on_click=on_click,
            args=args,
            help="Runs in the background. You can close the page and come back.",
        )
        if how_long is not None:
            st.caption(how_long())
    if problem:
        st.info(plain(problem), icon=":material/info:")
    if why := refused(note):
        st.error(plain(why), icon=":material/error:")


@dataclass(frozen=True)
class Followed:
    """How a page shows the job that is chosen: what it is ("sweep"), what it keeps ("points"), and its buttons' key and note.

    ``cards`` draws what it has found so far. ``redraws`` says that a running job's page must be drawn as a whole.
    """

    what: str
    kept: str
    key: str
    note: str
    cards: Callable[[jobs.Job], None]
    redraws: Callable[[], bool] = lambda: False

    def show(self, id: str, every: float = 1.5) -> None:
        """The cards: again and again while it runs, once afterwards, with what can be done about one that stopped."""
        job = job_or_none(id)
        if job is None:
            st.info(f"This {self.what} has been removed.", icon=":material/info:")
        elif job.state in jobs.ACTIVE:
            st.fragment(run_every=every)(self._live)(id)
        else:
            self._stopped(job)
            self.cards(job)

    def _live(self, id: str) -> None:
        job = job_or_none(id)
        if job is None or job.state not in jobs.ACTIVE or self.redraws():
            st.rerun()
        with st.container(horizontal=True, vertical_alignment="center"):
            bar(job, progress_text(job))
            cancel_button(job, key=f"{self.key}.cancel", note=self.note, width="content")
        self.cards(job)

    def _stopped(self, job: jobs.Job) -> None:
        if not job.resumable:
            return
        reason = f": {plain(job.error)}" if job.error else ""
        words = f"has {self.kept} that failed" if job.state is jobs.State.DONE else f"is {job.state}{reason}"
        st.warning(f"This {self.what} {words}. Finished {self.kept} are kept.", icon=":material/info:")
        more = f"Continues with the {self.kept} that are not finished."
        resume_button(job, key=f"{self.key}.resume", note=self.note, help=more)
