"""What every page draws of a job: its bar, the buttons that cancel it and go on with it, and why a click did nothing."""

from __future__ import annotations

from collections.abc import Callable
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
