"""The jobs of this server in the sidebar of every page: how far they are, and buttons to cancel and to resume them."""

from __future__ import annotations

import streamlit as st

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.ui.job_buttons import bar, cancel_button, refused, resume_button
from dcmerge.ui.text import plain

#: How many jobs the panel shows, and how often it looks while one of them is under way, in seconds.
_SHOWN, _EVERY = 5, 1.0
_NOTE = "jobs.note"
ICONS = {
    jobs.State.QUEUED: ":material/schedule:",
    jobs.State.RUNNING: ":material/play_arrow:",
    jobs.State.DONE: ":material/check:",
    jobs.State.FAILED: ":material/error:",
    jobs.State.CANCELLED: ":material/cancel:",
    jobs.State.INTERRUPTED: ":material/power_off:",
    jobs.State.UNKNOWN: ":material/help:",
}


def jobs_panel() -> None:
    """The panel where it is called. It looks at the disk every second while a job is under way, and only then.

    It is a fragment: it redraws itself and not the page, but for once when the last job has ended, so that the page can
    show what was found.
    """
    found = jobs.all_jobs()
    if any(job.state is jobs.State.QUEUED for job in found):
        _keep_going()
    if any(job.state in jobs.ACTIVE for job in found):
        _polled()
    else:
        _panel(found)


@st.fragment(run_every=_EVERY)
def _polled() -> None:
    found = jobs.all_jobs()
    if not any(job.state in jobs.ACTIVE for job in found):
        st.rerun()  # the only way to end the polling
    _panel(found)


def _keep_going() -> None:
    """After a restart of the machine no queued job runs until somebody looks at the queue."""
    try:
        jobs.ensure_runner()
    except (InputError, OSError) as error:
        st.session_state[_NOTE] = str(error)


def _panel(found: list[jobs.Job]) -> None:
    running = sum(job.state is jobs.State.RUNNING for job in found)
    waiting = sum(job.state is jobs.State.QUEUED for job in found)
    counts = [f"{count} {what}" for count, what in ((running, "running"), (waiting, "queued")) if count]
    # The key keeps it open or closed while its label changes.
    with st.expander(f"Jobs ({', '.join(counts)})" if counts else "Jobs", key="jobs.panel", icon=":material/work_history:"):
        if note := refused(_NOTE):
            st.warning(plain(note), icon=":material/info:")
        if not found:
            st.caption(
                "None yet. Comparisons and merges that run in the background appear here. They go on when you close the page."
            )
        active = [job for job in found if job.state in jobs.ACTIVE]
        ended = [job for job in found if job.state not in jobs.ACTIVE]
        for job in [*active, *ended][: max(_SHOWN, len(active))]:
            _entry(job)
        if len(found) > _SHOWN:
            st.caption("`python -m dcmerge jobs` lists all of them.")


def _entry(job: jobs.Job) -> None:
    state, progress = job.state, job.progress
    with st.container(border=True, gap="xsmall", key=f"jobs.{job.id}"):
        st.markdown(f"{ICONS[state]} {plain(job.label)}")
        if state is jobs.State.RUNNING:
            bar(job, progress.text)
        st.caption(_facts(job, state, progress))
        if job.odd:
            st.caption(plain(f"{job.odd[0].upper()}{job.odd[1:]}."))
        if state in jobs.ACTIVE:
            label = "Stopping …" if job.cancel_marker.exists() else "Cancel"
            cancel_button(job, key=f"jobs.cancel.{job.id}", note=_NOTE, label=label)
        elif job.resumable:
            told = "Continues with what is not finished. Finished steps are kept."
            resume_button(job, key=f"jobs.resume.{job.id}", note=_NOTE, help=told)


def _facts(job: jobs.Job, state: jobs.State, progress: jobs.Progress) -> str:
    """ "running, 40 % done, about 2:05 min left, 3 of 8 steps" in one line, and why it failed."""
    parts = [state.value]
    if state is jobs.State.RUNNING:
        parts.append(f"{100 * progress.share:.0f} % done")
        if progress.remaining is not None:
            parts.append(f"about {jobs.duration(progress.remaining)} left")
    parts.append(f"{len(job.steps())} of {len(job.specification.steps)} steps")
    if state is jobs.State.DONE and (failed := sum(bool(row.error) for row in job.rows().values())):
        parts.append(f"{failed} failed")
    text = ", ".join(parts)
    return plain(f"{text}: {job.error}" if job.error and state not in jobs.ACTIVE else text)
