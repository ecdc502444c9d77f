"""What a comparison found, from the first finished row on: progress, table, figures, export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from dcmerge.errors import WARNING
from dcmerge.evaluation import ZERO_SHOT
from dcmerge.methods import NEEDS, methods
from dcmerge.studies import exports
from dcmerge.studies.comparison import Comparison
from dcmerge.studies.glossary import explained, term
from dcmerge.studies.measuring import Row
from dcmerge.ui import comparing
from dcmerge.ui.charts import splits_caption
from dcmerge.ui.compare_figures import figures
from dcmerge.ui.compare_setup import SHOWN
from dcmerge.ui.notes import show_notes
from dcmerge.ui.shell import Page
from dcmerge.ui.text import percent, plain
from dcmerge.ui.view import remembered


def results_cards(page: Page) -> None:
    """The chosen comparison; a hint where there is none."""
    if page.models.bench is None:
        return
    known = comparing.listed(page.models)
    if not known:
        st.info("There is no comparison on this set yet. Choose methods above and start one.", icon=":material/info:")
        return
    with st.container(border=True):
        st.subheader("Results", help=explained("accuracy", "normalised accuracy", "zero-shot"))
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
        show_notes(found.notes)
        show_notes(f"{note} ({row.title})" for row in found.rows for note in row.notes if note.startswith(WARNING))
        _table(page, found)
        _export(found)
    figures(page, found)


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
            help="Continues with the methods that have no row yet.",
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
        st.info("The first rows appear when the base and the experts are measured.", icon=":material/hourglass_empty:")
        return None
    needs = {row.name: set(methods()[row.slug].needs) for row in found.rows if row.slug in methods()}
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
        help="Hides the methods that need anything else.",
    )
    rows = [row for row in found.rows if needs.get(row.name, set()) <= {"weights", *allowed}]
    return replace(found, rows=tuple(rows))


def _table(page: Page, found: Comparison) -> None:
    st.markdown(f"**Every method on the {found.measured_on}**")
    if merged := sorted({row.qkv for row in found.rows if row.qkv}):
        st.caption(f"Attention's q, k and v were merged {' and '.join(merged)}.", help=term("q, k and v"))
    if scale := found.row(ZERO_SHOT).measured.logit_scale:
        st.caption(f"Logit scale of entropies and losses: {plain(scale.text)}.", help=term("logit scale"))
    every = remembered(
        st.toggle, "All columns", key="columns", default=False, help="Cost, DirSim, drift, settings and more, besides the result."
    )
    st.dataframe(
        ranked(found, page.models.task_titles),
        hide_index=True,
        placeholder="–",
        height="content",
        alt="Every method: accuracy, cost and what it needs",
        column_order=list(_COLUMNS if every else _RESULT),
        column_config=_columns(),
    )
    failed = [f"{plain(row.title)}: {plain(row.error)}" for row in found.rows if row.error]
    if failed:
        st.warning("These could not be measured. " + " ".join(failed), icon=":material/info:")
    st.caption(
        "**How to read:** the best accuracy comes first, and ★ marks the best method. If the interval of a difference to "
        "averaging holds 0, these images show no difference. Methods share the singular vectors of the experts, so the first "
        "that needs them takes longest. Click the name of a column to sort."
    )
    splits_caption(found.row(ZERO_SHOT).measured)


def ranked(found: Comparison, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of the table, the most accurate first, failed ones last; the best method is marked, weak tasks are named."""
    best = max((row.measured.mean for row in found.rows if row.evaluation and not row.is_reference), default=None)
    rows = []
    for row, record in sorted(
        zip(found.rows, exports.table(found), strict=True), key=lambda pair: -pair[0].measured.mean if pair[0].evaluation else 1
    ):
        mark = "★ " if row.evaluation and not row.is_reference and row.measured.mean == best else ""
        weak = {"worst task": _worst(row, titles), "largest loss": _largest_loss(row, titles)}
        spans = {"interval": _interval(record, "accuracy"), "difference interval": _interval(record, "minus averaging")}
        rows.append({**record, **weak, **spans, "method": f"{mark}{row.title}"})
    return rows


def _worst(row: Row, titles: Mapping[str, str]) -> str | None:
    """ "48.0 % Letters"."""
    return row.evaluation and f"{percent(row.evaluation.worst.accuracy)} {_named(row.evaluation.worst.task, titles)}"


def _largest_loss(row: Row, titles: Mapping[str, str]) -> str | None:
    """ "−32.0 Emoji": the task that lies furthest below its own expert, in points; None where no expert is known."""
    tasks = row.evaluation.tasks if row.evaluation else {}
    losses = {name: task.accuracy - task.expert for name, task in tasks.items() if task.expert is not None}
    if not losses:
        return None
    task = min(losses, key=lambda name: losses[name])
    return f"{100 * losses[task]:+.1f} {_named(task, titles)}".replace("-", "−", 1)


def _named(task: str, titles: Mapping[str, str]) -> str:
    return titles.get(task, task)


def _interval(row: dict[str, Any], name: str) -> str | None:
    low, high = row[f"{name} low"], row[f"{name} high"]
    return None if low is None else f"{low:.1f} to {high:.1f}"


_ARITHMETIC = tuple(exports.GAINS)
#: Column -> its title, format (None: text) and help.
_COLUMNS: dict[str, tuple[str, str | None, str]] = {
    "method": ("method", None, "Zero-shot is the base; the experts are each on its own task. ★ is the best method."),
    "accuracy": ("absolute", "%.1f %%", term("accuracy")),
    "interval": ("95 %", None, term("interval")),
    "normalised": ("normalised", "%.1f %%", term("normalised accuracy")),
    "joint accuracy": ("joint", "%.1f %%", term("joint accuracy")),
    "worst task": ("worst task", None, term("worst task")),
    "largest loss": ("largest loss", None, "The task that lies furthest below its own expert, in percentage points."),
    "minus averaging": ("− averaging", "%+.1f", term("minus averaging")),
    "difference interval": ("95 % of it", None, term("paired bootstrap")),
    _ARITHMETIC[0]: ("− TA, α = 0.3", "%+.1f", "Points over Task Arithmetic at the papers' α. The exports have the intervals."),
    _ARITHMETIC[1]: ("− TA, tuned", "%+.1f", "Points over Task Arithmetic at the α chosen on validation images."),
    "alpha": ("α", "%g", term("α")),
    "merge seconds": ("merge, s", "%.1f", "How long the merge took, in seconds."),
    "alpha seconds": ("α, s", "%.1f", "How long the choice of α on validation images took, in seconds."),
    "peak MiB": (
        "memory, MiB",
        "%.0f",
        "How much memory the merge needed at most, beyond what earlier methods had left behind.",
    ),
    "needs": ("needs", None, "What the method needs besides the merge itself."),
    "dirsim": ("DirSim", "%.3f", term("DirSim")),
    "feature drift": ("drift", "%.2f", f"Of the last features, in units of the base. {term('feature drift')}"),
    "parameters": ("parameters", None, "The settings of the method."),
    "alpha from": ("α from", None, "Whether α was chosen on validation images or is fixed."),
}


#: What fits the card on a small screen.
_RESULT = ("method", "accuracy", "normalised", "worst task", "largest loss", "minus averaging", "difference interval")


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
            help="All rows and columns.",
        )
        st.download_button(
            "Markdown",
            data=exports.as_markdown(found),
            file_name="comparison.md",
            mime="text/markdown",
            on_click="ignore",
            icon=":material/download:",
            help="A table to paste into a report.",
        )
