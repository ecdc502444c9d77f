"""Does it tell? The study of this set that was finished last: which measures tell without labels, and what they cost."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.jobs.telling import Kept, newest
from dcmerge.plots.tells import correlation_figure, regret_figure
from dcmerge.studies.glossary import explained
from dcmerge.studies.tells import ALL, MEASURES, SCOPES, Study
from dcmerge.studies.tells.found import sentence
from dcmerge.studies.tells.tables import as_csv
from dcmerge.ui.charts import show
from dcmerge.ui.shell import Page
from dcmerge.ui.text import plain
from dcmerge.ui.view import remembered

_EVERY = ""


def tells_cards(page: Page) -> None:
    """The newest study; a hint where there is none."""
    if page.models.bench is None:
        st.info("This set has no images, so no accuracy can be measured.", icon=":material/image_not_supported:")
        return
    kept = newest(page.models.vectors)
    found = kept and _found(str(kept.path), kept.ended, kept)
    if not kept or not found:
        st.info(
            "There is no finished study of this set yet. `python -m dcmerge tells` makes one in a terminal; it is shown here.",
            icon=":material/info:",
        )
        return
    with st.container(border=True):
        st.subheader("Does it tell?", help=explained("DirSim", "normalised accuracy", "validation split"))
        scope, task = _controls(page, found)
        st.markdown(plain(sentence(found, scope)))
        _charts(page, found, scope, task)
        best, alpha, accuracy = found.choice(None)
        st.caption(
            plain(
                f"{len(found.merged)} merges, {found.plan.limit} validation images a task with labels and "
                f"{found.plan.unlabeled} others without; finished {datetime.fromtimestamp(kept.ended):%d %b %H:%M}. The best by "
                f"labels: {best.label}, α = {alpha:g}, {100 * accuracy:.1f} % normalised."
            )
        )
        with st.expander("What each measure is"):
            st.markdown("\n".join(f"- **{name}**: {plain(MEASURES[name].about)}" for name in found.measures))
        st.download_button("Every merge as CSV", lambda: as_csv(found), "tells.csv", "text/csv", icon=":material/download:")


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
def _found(path: str, ended: float, _kept: Kept) -> Study | None:
    try:
        return _kept.study()
    except InputError:
        return None
