"""Figures of a comparison: what each method reaches, what it costs, and why, over all tasks and task by task."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dcmerge import plots
from dcmerge.plots.layers import layer_map
from dcmerge.studies.comparison import Comparison
from dcmerge.studies.glossary import term
from dcmerge.studies.measuring import Row
from dcmerge.ui.charts import show
from dcmerge.ui.shell import Page
from dcmerge.ui.view import remembered
from dcmerge.vectors.naming import place_of

_DRIFTS = {"in units of the base's drift": True, "mean squared difference": False}


def figures(page: Page, found: Comparison) -> None:
    """Tasks by methods, accuracy against cost, losses, directions and features; whatever was measured."""
    with st.container(border=True):
        show(
            plots.normalised_map(found, page.models.task_titles),
            "each cell is the accuracy of a method on a task, divided by that of the task's own expert. 100 keeps everything "
            "that the expert knows. A dark row is a task that merging loses; a column with one dark cell pays for its mean "
            "with that task.",
            key="compare.map",
            terms=("normalised accuracy",),
        )
    measured = [row for row in found.rows if row.evaluation and not row.is_reference]
    if not measured:
        return
    with st.container(border=True):
        show(
            plots.accuracy_against_cost(found),
            "up is better, left is faster. Two methods whose 95 % whiskers overlap widely may be equally good. The dotted "
            "lines are the base and the experts, the floor and the ceiling of a merge. Methods share the singular vectors of "
            "the experts, so only the first one that needs them pays for them.",
            key="compare.cost",
            terms=("accuracy", "interval"),
        )
    if any(row.curve for row in measured):
        with st.container(border=True):
            show(
                plots.loss_lines(found),
                "a flat line has learned what it can; one that still falls would gain from more steps. Each line starts at 1, "
                "because the methods minimise different things. Their heights do not say which method is better.",
                key="compare.loss",
                terms=("loss", "entropy", "logit scale"),
            )
    if not any(row.drift for row in measured):
        return
    with st.container(border=True):
        show(
            plots.dirsim_bars(found),
            "higher means that the merged weights still point where the experts pointed. The whiskers span the least and the "
            "best preserved expert.",
            key="compare.dirsim",
            terms=("DirSim", "direction"),
        )
    with st.container(border=True):
        unit = remembered(
            st.segmented_control,
            "Feature drift",
            key="drift",
            default=next(iter(_DRIFTS)),
            options=list(_DRIFTS),
            required=True,
            help=f"{term('feature drift')} The drift of the base is how far its own features lie from those of the experts.",
        )
        show(
            plots.drift_lines(found, relative=_DRIFTS[unit]),
            "each line shows how far a merged model is from the experts after every block, and at the end in the final "
            "features. 0 is the same as the expert; in units of the base, 1 is no better than the base.",
            key="compare.drift",
            terms=("feature drift",),
        )
    _task_maps(page, [row for row in measured if row.drift or (row.dirsim and row.dirsim.layers)])


def _task_maps(page: Page, rows: Sequence[Row]) -> None:
    """DirSim and drift of one method, task by task."""
    if not rows:
        return
    titles = page.models.task_titles
    with st.container(border=True):
        names = {row.name: row.title for row in rows}
        name = remembered(
            st.selectbox,
            "Task by task",
            key="compare.map.method",
            default=next(iter(names)),
            options=list(names),
            format_func=names.get,
            help="The method whose tasks are shown one by one.",
        )
        row = next(row for row in rows if row.name == name)
        if row.dirsim and row.dirsim.layers:
            show(
                layer_map(
                    row.dirsim.table,
                    [place_of(layer).label for layer in row.dirsim.layers],
                    [titles.get(task, task) for task in row.dirsim.tasks],
                    "DirSim",
                    f"DirSim of {row.title} and each expert, by task and matrix",
                ),
                "a dark row is an expert whose directions the merge does not keep; a dark column is a matrix in which it keeps "
                "nobody's.",
                key="compare.dirsim.map",
                terms=("DirSim",),
            )
        if row.drift:
            show(
                layer_map(
                    row.drift.ratios,
                    row.drift.places,
                    [titles.get(task, task) for task in row.drift.tasks],
                    "drift",
                    f"Feature drift of {row.title} by task and place, in units of the base's drift",
                ),
                "0 answers like the expert, 1 is as far from it as the base. A light row is a task that the merge does not "
                "reach.",
                key="compare.drift.map",
                terms=("feature drift",),
            )
