"""What a comparison found, from the first finished row on: progress, table, figures, export."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from dcmerge import plots
from dcmerge.evaluation import ZERO_SHOT
from dcmerge.methods import NEEDS, methods
from dcmerge.studies import exports
from dcmerge.studies.comparison import Comparison
from dcmerge.ui import comparing
from dcmerge.ui.charts import show, splits_caption
from dcmerge.ui.compare_setup import SHOWN
from dcmerge.ui.shell import Page
from dcmerge.ui.text import plain
from dcmerge.ui.view import remembered

_DRIFTS = {"in units of the base's drift": True, "mean squared difference": False}


def results_cards(page: Page) -> None:
    """The chosen comparison; a hint where there is none."""
    if page.models.bench is None:
        return
    known = comparing.listed(page.models)
    if not known:
        st.info("No comparison on this set yet: choose methods above and start one.", icon=":material/info:")
        return
    with st.container(border=True):
        st.subheader("Results")
        chosen = remembered(
            st.selectbox,
            "Comparison",
            key=SHOWN,
            default=next(iter(known)),
            options=list(known),
            format_func=known.get,
            help="Newest first.",
        )
        shown = comparing.find(chosen)
        if shown is None:
            st.info("This comparison has been removed.", icon=":material/info:")
            return
        _state(shown)
        found = _filtered(shown.comparison)
        if found is None:
            return
        _table(page, found)
        _export(found)
    _figures(page, found)


def _state(shown: comparing.Shown) -> None:
    """Progress while it runs, and what can be done about one that stopped."""
    if shown.is_running:
        _watched(shown.id, _rows(shown))
    elif shown.can_resume:
        reason = f": {plain(shown.error)}" if shown.error else ""
        words = "has rows that failed" if shown.state == "done" else f"is {shown.state}{reason}"
        st.warning(f"This comparison {words}. Finished rows are kept.", icon=":material/info:")
        st.button(
            "Resume",
            icon=":material/play_arrow:",
            on_click=comparing.resume,
            args=(shown.id,),
            help="Goes on with the methods that have no row yet.",
        )


def _rows(shown: comparing.Shown) -> int:
    return len(shown.comparison.rows) if shown.comparison else 0


@st.fragment(run_every=1.0)
def _watched(id: str, rows: int) -> None:
    """The progress bar; redraws the page when a row is ready or the work has ended."""
    shown = comparing.find(id)
    if shown is None or not shown.is_running or _rows(shown) != rows:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(min(1.0, shown.share), text=plain(shown.text))
        st.button(
            "Cancel", key="compare.cancel", icon=":material/cancel:", on_click=comparing.cancel, args=(id,), width="content"
        )


def _filtered(found: Comparison | None) -> Comparison | None:
    """The rows whose methods need only what the user allows; None while there is no row with figures."""
    if found is None or not any(row.evaluation for row in found.rows):
        st.info("The first rows come when the base and the experts are evaluated.", icon=":material/hourglass_empty:")
        return None
    needs = {row.name: set(methods()[row.name].needs) for row in found.rows if row.name in methods()}
    other = sorted(set().union(*needs.values()) - {"weights"})
    if not other:
        return found
    allowed = remembered(
        st.multiselect,
        "Data needed besides the experts' weights",
        key="allowed",
        default=other,
        options=other,
        format_func=NEEDS.get,
        help="Methods that need anything else are hidden.",
    )
    rows = [row for row in found.rows if needs.get(row.name, set()) <= {"weights", *allowed}]
    return replace(found, rows=tuple(rows))


def _table(page: Page, found: Comparison) -> None:
    st.markdown(f"**Every method on the {found.measured_on}**")
    if merged := sorted({row.qkv for row in found.rows if row.qkv}):
        st.caption(f"Attention's q, k and v merged {' and '.join(merged)}.")
    if scale := found.row(ZERO_SHOT).evaluation.logit_scale:
        st.caption(f"Logit scale of entropies and losses: {plain(scale.text)}.")
    rows = exports.table(found)
    for row in rows:
        row["worst task"] = page.models.task_titles.get(row["worst task"], row["worst task"])
        row["interval"] = _interval(row, "accuracy")
        row["difference interval"] = _interval(row, "minus averaging")
    st.dataframe(
        rows,
        hide_index=True,
        placeholder="–",
        height="content",
        alt="Every method: accuracy, cost and what it needs",
        column_order=list(_COLUMNS),
        column_config=_columns(),
    )
    failed = [f"{plain(row.title)}: {plain(row.error)}" for row in found.rows if row.error]
    if failed:
        st.warning("Not measured. " + " ".join(failed), icon=":material/info:")
    st.caption(
        "**How to read:** a difference to averaging whose interval holds 0 is none that these images can show. Methods "
        "share the experts' singular vectors: the first that needs them takes the time. A click on a column's name sorts."
    )
    splits_caption(found.row(ZERO_SHOT).evaluation)


def _interval(row: dict[str, Any], name: str) -> str | None:
    low, high = row[f"{name} low"], row[f"{name} high"]
    return None if low is None else f"{low:.1f} to {high:.1f}"


#: Column -> its title, format (None: text) and help.
_COLUMNS: dict[str, tuple[str, str | None, str]] = {
    "method": ("method", None, "Zero-shot is the base, experts are each on their own task."),
    "accuracy": ("absolute", "%.1f %%", "Top-1, mean over tasks."),
    "interval": ("95 %", None, "95 % interval of the mean, from the tasks' Wilson intervals."),
    "normalised": ("normalised", "%.1f %%", "Mean over tasks of the accuracy divided by that of the task's own expert."),
    "worst accuracy": ("worst", "%.1f %%", "The lowest accuracy of all tasks."),
    "worst task": ("worst task", None, "The task with the lowest accuracy."),
    "minus averaging": ("− averaging", "%+.1f", "Points of mean accuracy over weight averaging on the same images."),
    "difference interval": ("95 % of it", None, "95 % interval of the difference, paired bootstrap over images."),
    "alpha": ("α", "%g", "How far the model goes along the merged task vector."),
    "merge seconds": ("merge, s", "%.1f", "Seconds to merge."),
    "alpha seconds": ("α, s", "%.1f", "Seconds to choose α on validation."),
    "peak MiB": (
        "memory, MiB",
        "%.0f",
        "How much the process grew at most while merging; memory that earlier methods left to it is not counted.",
    ),
    "needs": ("needs", None, "What the method works with."),
    "dirsim": ("DirSim", "%.3f", "How far the merged task vector still points where the experts pointed, 0 to 1."),
    "feature drift": ("drift", "%.2f", "Squared difference of the final features to the expert's; 1 is the base's."),
    "parameters": ("parameters", None, "All parameters of the method."),
    "alpha from": ("α from", None, "Where α came from."),
}


def _columns() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        name: text(title, help=help, pinned=name == "method") if form is None else number(title, format=form, help=help)
        for name, (title, form, help) in _COLUMNS.items()
    }


def _export(found: Comparison) -> None:
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            data=exports.as_csv(found),
            file_name="comparison.csv",
            mime="text/csv",
            on_click="ignore",
            icon=":material/download:",
            help="One line a row, all columns.",
        )
        st.download_button(
            "Markdown",
            data=exports.as_markdown(found),
            file_name="comparison.md",
            mime="text/markdown",
            on_click="ignore",
            icon=":material/download:",
            help="A table for a report or an issue.",
        )


def _figures(page: Page, found: Comparison) -> None:
    with st.container(border=True):
        show(
            plots.normalised_map(found, page.models.task_titles),
            "each cell is a method's accuracy on a task divided by that of the task's own expert: 100 keeps everything that the "
            "expert knows. A row that stays dark is a task that merging loses; a column with one dark cell pays for its mean "
            "with that task.",
            key="compare.map",
        )
    measured = [row for row in found.rows if row.evaluation and not row.is_reference]
    if not measured:
        return
    with st.container(border=True):
        show(
            plots.accuracy_against_cost(found),
            "up is better, left is cheaper; points whose whiskers (95 %) overlap widely may be equally good. Methods share the "
            "experts' singular vectors, so one that needs them is far to the right only if it came first. Dotted lines are the "
            "base and the experts, the floor and the ceiling of a merge.",
            key="compare.cost",
        )
    if any(row.curve for row in measured):
        with st.container(border=True):
            show(
                plots.loss_lines(found),
                "a line that has become flat has learned what it can; one that still falls would go on with more steps. Losses "
                "are of different kinds (entropy, distance to the experts, cross-entropy, missed reward), so each starts at 1; "
                "they say nothing about which method is better.",
                key="compare.loss",
            )
    if not any(row.drift for row in measured):
        return
    with st.container(border=True):
        show(
            plots.dirsim_bars(found),
            "DirSim compares singular directions without their sizes: higher means that the merged weights still point where "
            "the experts pointed. Whiskers span the least and the best kept expert.",
            key="compare.dirsim",
        )
    with st.container(border=True):
        unit = remembered(
            st.segmented_control,
            "Feature drift",
            key="drift",
            default=next(iter(_DRIFTS)),
            options=list(_DRIFTS),
            required=True,
            help="The base's drift is how far the base's features lie from the experts'.",
        )
        show(
            plots.drift_lines(found, relative=_DRIFTS[unit]),
            "each expert sees its own images, and so does the merged model: 0 answers like the expert at that place, 1 no "
            "better than the base. Places are the stream after each block (all tokens) and the final features.",
            key="compare.drift",
        )
