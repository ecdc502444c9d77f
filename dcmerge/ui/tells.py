"""Does it tell? A study from its third merge on: which measures tell without labels, and what choosing by them costs."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from dcmerge import jobs
from dcmerge.errors import InputError
from dcmerge.jobs.commands import repeated
from dcmerge.jobs.telling import Kept, kept_of
from dcmerge.plots.tells import correlation_figure, regret_figure
from dcmerge.reports import Report, report_of_study
from dcmerge.studies.glossary import explained
from dcmerge.studies.tells import ALL, MEASURES, SCOPES, Study
from dcmerge.studies.tells.found import sentence
from dcmerge.studies.tells.tables import as_csv
from dcmerge.ui import tells_setup
from dcmerge.ui.charts import show
from dcmerge.ui.job_buttons import Followed
from dcmerge.ui.reporting import report_button
from dcmerge.ui.shell import Page
from dcmerge.ui.text import plain
from dcmerge.ui.view import newest, remembered

_EVERY = ""


def tells_cards(page: Page) -> None:
    """The plan of a study, then the chosen one as far as it is."""
    if page.models.bench is None:
        st.info("This set has no images, so no accuracy can be measured.", icon=":material/image_not_supported:")
        return
    tells_setup.setup_card(page)
    known = tells_setup.listed(page.models)
    if not known:
        st.info("There is no study of this set yet. Start one above: it grows here merge by merge.", icon=":material/info:")
        return
    name = newest(
        "Study",
        {name: one.label for name, one in known.items()},
        key=tells_setup.SHOWN,
        help="Newest first. Studies that were made in a terminal stand here too.",
    )
    job = known[name].job
    if job is None:
        _cards(page, name, None)
    else:
        Followed("study", "merges", "tells", tells_setup.REFUSED, lambda job: _cards(page, name, job)).show(job.id, every=3.0)


def _cards(page: Page, name: str, job: jobs.Job | None) -> None:
    """What the study has found so far."""
    kept = next((one for one in kept_of(page.models.vectors) if one.name == name), None)
    found = kept and _found(str(kept.path), kept.changed, kept)
    if not kept or not found:
        st.info("The first figures appear after three merges.", icon=":material/hourglass_empty:")
        return
    with st.container(border=True):
        st.subheader("Does it tell?", help=explained("DirSim", "normalised accuracy", "validation split"))
        scope, task = _controls(page, found)
        st.markdown(plain(sentence(found, scope)))
        _charts(page, found, scope, task)
        best, alpha, accuracy = found.choice(None)
        ended = f"finished {datetime.fromtimestamp(kept.ended):%d %b %H:%M}" if kept.ended else f"of {kept.plan.merges} planned"
        st.caption(
            plain(
                f"{len(found.merged)} merges, {found.plan.limit} validation images a task with labels and "
                f"{found.plan.unlabeled} others without; {ended}. The best by "
                f"labels: {best.label}, α = {alpha:g}, {100 * accuracy:.1f} % normalised."
            )
        )
        with st.expander("What each measure is"):
            st.markdown("\n".join(f"- **{name}**: {plain(MEASURES[name].about)}" for name in found.measures))
        with st.container(horizontal=True):
            st.download_button("Every merge as CSV", lambda: as_csv(found), "tells.csv", "text/csv", icon=":material/download:")
            report_button(lambda: _report(page, found, job), "tells", "tells.report")


def _report(page: Page, found: Study, job: jobs.Job | None) -> Report:
    return report_of_study(found, f"What tells on {page.models.title}", repeated(job) if job else {})


def _controls(page: Page, found: Study) -> tuple[str, str | None]:
    """The choice that the measures are asked about, and whether over all tasks or on one."""
    left, right = st.columns([3, 2])
    with left:
        scope = remembered(
            st.selectbox,
            "What is chosen",
            key="tells.scope",
            default=ALL,
            options=list(SCOPES),
            format_func=lambda name: f"{SCOPES[name][0].upper()}{SCOPES[name][1:]}",
            help="A measure that tells merges apart need not tell which α is best: directions do not change with α at all.",
        )
    with right:
        task = remembered(
            st.selectbox,
            "Accuracy on",
            key="tells.task",
            default=_EVERY,
            options=[_EVERY, *found.tasks],
            format_func=lambda name: page.models.task_titles.get(name, name) if name else "all tasks (mean)",
        )
    return scope, task or None


def _charts(page: Page, found: Study, scope: str, task: str | None) -> None:
    show(
        correlation_figure(found, scope, task, page.models.task_titles.get(task or "", task or "")),
        "at +1 the measure puts the merges in the order of their accuracy, at 0 it says nothing, below 0 it misleads. Whiskers "
        "are 95 % intervals over the merges. A dot inside the grey band could come from shuffled labels.",
        key="tells.correlations",
        terms=("normalised accuracy", "interval"),
    )
    show(
        regret_figure(found, scope),
        "how many points you lose, over all tasks, when you take what the measure prefers instead of what labels prefer. A bar "
        "beyond the dashed line is worse than choosing blindly.",
        key="tells.regrets",
        terms=("normalised accuracy", "interval"),
    )


@st.cache_resource(max_entries=4, show_spinner="Counting how well each measure tells …")
def _found(path: str, changed: float, _kept: Kept) -> Study | None:
    try:
        return _kept.study()
    except InputError:
        return None
