"""The runs of a set as the pages see them: recorded, found again, in a table, and compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import streamlit as st

from dcmerge import plots
from dcmerge.errors import InputError
from dcmerge.runs import Run, RunStore, SetId, paired
from dcmerge.runs.fields import made_at
from dcmerge.studies.glossary import term
from dcmerge.studies.measuring import TITLES
from dcmerge.studies.run_names import label_of, settings_of, title_of
from dcmerge.ui.charts import show
from dcmerge.ui.shell import Page
from dcmerge.ui.text import hundredfold, interval, plain
from dcmerge.ui.view import remembered

#: How many runs the Merge page lists; the Runs page has all of them.
_LATEST = 20
_PAGE = "pages/8_Runs.py"

T = TypeVar("T")


def set_of(page: Page) -> SetId:
    """How runs tell the set that a page works on."""
    return SetId.of(page.models.vectors, page.models.name)


def told(action: Any, *arguments: Any, default: T, **more: Any) -> T:
    """What the store answers; where it cannot be used one box says why, and the page goes on with ``default``."""
    try:
        return action(*arguments, **more)
    except InputError as error:
        st.warning(plain(str(error)), icon=":material/database_off:")
        return default


def history_card(page: Page) -> None:
    """The latest runs on this set, of this session or of any other; picked ones are compared."""
    if page.models.bench is None:
        return
    found = told(RunStore().find, default=[], set=set_of(page).hash, limit=3 * _LATEST)
    known = [run for run in found if run.method not in TITLES][:_LATEST]  # base and experts come with every evaluation
    if not known:
        return
    with st.container(border=True):
        st.subheader("Latest runs on this set", help=term("run"))
        st.markdown("Everything you measure is kept. Select two or more rows to compare them task by task.")
        compared(page.models.task_titles, picked(known, key="merge.history"))
        st.page_link(_PAGE, label="All runs: filter, name, pin, export", icon=":material/history:")


def picked(runs: Sequence[Run], *, key: str, pinned: Collection[str] = ()) -> list[Run]:
    """A table of runs; those whose rows are selected, which the keyboard can do too."""
    chosen = st.dataframe(
        [_row(run, run.id in pinned) for run in runs],
        hide_index=True,
        key=key,
        on_select="rerun",
        selection_mode="multi-row",
        column_config=_columns(),
        alt="Runs, the newest first",
        height=min(420, 38 + 35 * len(runs)),
    )
    st.caption("Select a row with the box on its left, or with the keyboard: arrow keys go to it, Shift and Space select it.")
    return [runs[place] for place in chosen.selection.rows if place < len(runs)]


def _row(run: Run, is_pinned: bool) -> dict[str, Any]:
    measured, made = run.evaluation, made_at(run)
    marks = f"{'★' if run.starred else ''}{' ⚲' if is_pinned else ''}"
    return {
        "": marks.strip(),
        "time": made and made.strftime("%d %b %H:%M:%S"),
        "name": run.name,
        "method": title_of(run),
        "parameters": settings_of(run) or "defaults",
        "α": run.alpha,
        "absolute": 100 * measured.mean,
        "normalised": hundredfold(measured.mean_normalised),
        "joint": hundredfold(measured.joint_mean),
        "worst task": 100 * measured.worst.accuracy,
        "measured on": measured.measured_on,
        "what": run.kind,
        "α from": run.alpha_origin,
        "tried": run.tried,
        "note": run.note,
    }


def _columns() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "name": text(width=130),
        "method": text(width=150),
        "": text(width=50, help="★ starred; ⚲ pinned: live looks are shown against it."),
        "what": text(help="What led to it: a look, a point of a sweep, a row of a comparison, or an evaluation."),
        "absolute": number(format="%.1f %%", help=term("accuracy")),
        "normalised": number(format="%.1f %%", help=term("normalised accuracy")),
        "joint": number(format="%.1f %%", help=term("joint accuracy")),
        "worst task": number(format="%.1f %%", help=term("worst task")),
        "α": number(help=term("α")),
        "α from": text(help="Whether α was set by hand or found on validation images."),
        "tried": text(help="From how many tries the values were chosen, and on which images."),
    }


def compared(titles: Mapping[str, str], runs: Sequence[Run]) -> None:
    """Two or more runs: each one's paired difference to the first, and their accuracies task by task."""
    if len(runs) < 2:
        return
    others = [run for run in runs if run.images != runs[0].images]
    if others:
        first, other = runs[0].evaluation.measured_on, others[0].evaluation.measured_on
        st.info(
            f"These were measured on different images ({plain(first)}; {plain(other)}). Measure all on the same ones to compare "
            "them.",
            icon=":material/info:",
        )
        return
    labels = _distinct(runs)
    baseline = remembered(
        st.selectbox,
        "Compared with",
        key="runs.baseline",
        default=runs[-1].id,
        options=[run.id for run in runs],
        format_func=labels.get,
        help=term("paired bootstrap"),
    )
    first = next(run for run in runs if run.id == baseline)
    for run in runs:
        if run is not first:
            _difference(run, first, labels)
    show(
        plots.comparison_bars([(labels[run.id], run.evaluation) for run in runs], titles),
        "each group of bars is one task, measured on the same images. The whiskers are the 95 % interval of each.",
        key="runs.compare",
        terms=("accuracy", "interval"),
    )


def _distinct(runs: Sequence[Run]) -> dict[str, str]:
    """Labels by id; equal ones are told apart by the end of their ids."""
    labels = {run.id: label_of(run) for run in runs}
    texts = list(labels.values())
    return {id: f"{label} [{id[-6:]}]" if texts.count(label) > 1 else label for id, label in labels.items()}


def _difference(run: Run, first: Run, labels: Mapping[str, str]) -> None:
    difference = paired(run, first)
    verdict = "This is a real difference" if difference.excludes_zero else "These images show no difference"
    st.markdown(
        f"**{plain(labels[run.id])}** minus **{plain(labels[first.id])}**: {plain(interval(difference))} points, with its 95 % "
        f"interval. {verdict}."
    )
