"""The table of a comparison: the best first, and every row against the one that is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Evaluation, paired_difference
from dcmerge.studies import exports
from dcmerge.studies.comparison import AVERAGE, Comparison
from dcmerge.studies.glossary import explained, term
from dcmerge.studies.measuring import Row
from dcmerge.ui.charts import splits_caption
from dcmerge.ui.shell import Page
from dcmerge.ui.text import percent, plain
from dcmerge.ui.view import remembered


def table(page: Page, found: Comparison) -> None:
    st.markdown(f"**Every method on the {found.measured_on}**")
    if merged := sorted({row.qkv for row in found.rows if row.qkv}):
        st.caption(f"Attention's q, k and v were merged {' and '.join(merged)}.", help=term("q, k and v"))
    if scale := found.row(ZERO_SHOT).measured.logit_scale:
        st.caption(f"Logit scale of entropies and losses: {plain(scale.text)}.", help=term("logit scale"))
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        baseline = _baseline(found)
    with right:
        every = remembered(
            st.toggle,
            "All columns",
            key="columns",
            default=False,
            help="Cost, DirSim, drift, settings and more, besides the result.",
        )
    st.dataframe(
        ranked(found, page.models.task_titles, baseline.name),
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
        "**How to read:** the best accuracy comes first, and ★ marks the best method. If the interval of a difference "
        "holds 0, these images show no difference. Methods share the singular vectors of the experts, so the first "
        "that needs them takes longest. Click the name of a column to sort."
    )
    splits_caption(found.row(ZERO_SHOT).measured)


def _baseline(found: Comparison) -> Row:
    """The row that all others are compared to."""
    measured = {row.name: row for row in found.rows if row.evaluation}
    name = remembered(
        st.selectbox,
        "Compared with",
        key="compare.baseline",
        default=AVERAGE if AVERAGE in measured else ZERO_SHOT,
        options=list(measured),
        format_func=lambda one: measured[one].title,
        help="The differences of the table are to this row, on the same images.\n\n"
        + explained("minus averaging", "paired bootstrap"),
    )
    return measured[name]


def ranked(found: Comparison, titles: Mapping[str, str], baseline: str = AVERAGE) -> list[dict[str, Any]]:
    """The rows of the table, the most accurate first, failed ones last; the best method is marked, weak tasks are named."""
    against = next((row.evaluation for row in found.rows if row.name == baseline), None)
    best = max((row.measured.mean for row in found.rows if row.evaluation and not row.is_reference), default=None)
    rows = []
    for row, record in sorted(
        zip(found.rows, exports.table(found), strict=True), key=lambda pair: -pair[0].measured.mean if pair[0].evaluation else 1
    ):
        mark = "★ " if row.evaluation and not row.is_reference and row.measured.mean == best else ""
        weak = {"worst task": _worst(row, titles), "largest loss": _largest_loss(row, titles)}
        spans = {"interval": _interval(record["accuracy low"], record["accuracy high"]), **_difference(row, baseline, against)}
        rows.append({**record, **weak, **spans, "method": f"{mark}{row.title}"})
    return rows


def _difference(row: Row, baseline: str, against: Evaluation | None) -> dict[str, Any]:
    """Points over the baseline and their interval; None for the baseline itself and for a row without figures."""
    if row.evaluation is None or against is None or row.name == baseline:
        return {"difference": None, "difference interval": None}
    found = paired_difference(row.evaluation, against)
    low, high = (round(100 * end, 2) for end in (found.low, found.high))
    return {"difference": round(100 * found.value, 2), "difference interval": _interval(low, high)}


def _worst(row: Row, titles: Mapping[str, str]) -> str | None:
    """ "48.0 % Letters"."""
    return row.evaluation and f"{percent(row.evaluation.worst.accuracy)} {_named(row.evaluation.worst.task, titles)}"


def _largest_loss(row: Row, titles: Mapping[str, str]) -> str | None:
    """ "−32.0 Emoji": the task that lies furthest below its own expert, in points; None where no expert is known."""
    tasks = row.evaluation.tasks if row.evaluation else {}
    losses = {name: task.accuracy - task.expert for name, task in tasks.items() if task.expert is not None}
    if not losses or row.name == EXPERTS:
        return None
    task = min(losses, key=lambda name: losses[name])
    return f"{100 * losses[task]:+.1f} {_named(task, titles)}".replace("-", "−", 1)


def _named(task: str, titles: Mapping[str, str]) -> str:
    return titles.get(task, task)


def _interval(low: float | None, high: float | None) -> str | None:
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
    "difference": ("difference", "%+.1f", "The mean accuracy minus that of the row chosen above, in points, on the same images."),
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
_RESULT = ("method", "accuracy", "normalised", "worst task", "largest loss", "difference", "difference interval")


def _columns() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        name: text(title, help=help, pinned=name == "method") if form is None else number(title, format=form, help=help)
        for name, (title, form, help) in _COLUMNS.items()
    }
