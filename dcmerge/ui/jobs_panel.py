"""The sidebar's list of what runs in the background, on every page; it redraws itself and never the page."""

from __future__ import annotations

import streamlit as st

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.jobs import Job
from dcmerge.ui.text import duration, plain

#: Jobs that are listed, newest first, and seconds between two looks while one is active.
_LISTED, _INTERVAL = 5, 1.0
_ICONS = {
    jobs.QUEUED: ":material/schedule:", jobs.RUNNING: ":material/play_circle:", jobs.DONE: ":material/check_circle:",
    jobs.FAILED: ":material/error:", jobs.CANCELLED: ":material/cancel:", jobs.INTERRUPTED: ":material/power_off:",
}  # fmt: skip


def jobs_panel() -> None:
    """Nothing where there is no job; a list that redraws itself while one waits or runs."""
    known = jobs.all_jobs()
    if not known:
        return
    active = sum(one.is_active for one in known)
    with st.expander("Jobs", expanded=active > 0, icon=":material/list_alt:"):
        (_watched if active else _list)()


@st.fragment(run_every=_INTERVAL)
def _watched() -> None:
    _list()


def _list() -> None:
    known = jobs.all_jobs()
    for one in known[:_LISTED]:
        with st.container(border=True):
            _entry(one)
    if len(known) > _LISTED:
        st.caption(f"And {len(known) - _LISTED} older: python -m dcmerge jobs list")


def _entry(job: Job) -> None:
    st.markdown(f"{_ICONS[job.state]} **{plain(job.label)}**")
    if job.state == jobs.RUNNING:
        rest = f", about {duration(job.remaining)} left" if job.remaining is not None else ""
        st.progress(min(1.0, job.share), text=plain(f"{job.text or 'starting'}{rest}"))
    else:
        st.caption(plain(f"{job.state}{f': {job.error}' if job.error else ''}"))
    if job.is_active:
        st.button("Cancel", key=f"{job.id}.cancel", icon=":material/cancel:", on_click=_act, args=(jobs.cancel, job.id))
    elif job.can_resume:
        st.button("Resume", key=f"{job.id}.resume", icon=":material/play_arrow:", on_click=_act, args=(jobs.resume, job.id),
                  help="Goes on after the steps that are finished.")  # fmt: skip


def _act(what: object, id: str) -> None:
    try:
        what(id)
    except InputError as error:  # it has just ended by itself
        st.toast(plain(str(error)))
