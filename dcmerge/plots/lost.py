"""Confusion of one task: which class is taken for which, and what the merge changes about it."""

from __future__ import annotations

import plotly.graph_objects as go
from torch import Tensor

from dcmerge.plots.style import DIVERGING, SCALE, colour_bar, titled
from dcmerge.studies.lost.found import EXPERT, MERGED, TaskAnswers

#: Besides the three models: the merge's counts minus the expert's.
CHANGE = "merge minus expert"
_TITLES = {"base": "the base", EXPERT: "the expert", MERGED: "the merge"}
_WRITTEN = 12


def confusion_map(one: TaskAnswers, shown: str, title: str) -> go.Figure:
    """Images by true class (rows) and answer (columns), of a model or of the merge minus the expert."""
    table = one.confusion(MERGED) - one.confusion(EXPERT) if shown == CHANGE else one.confusion(shown)
    change = shown == CHANGE
    limit = max(1, int(table.abs().max()))
    figure = go.Figure(
        go.Heatmap(
            z=_signed(table).tolist() if change else table.tolist(),
            customdata=table.tolist(),
            x=list(one.classes),
            y=list(one.classes),
            colorscale=DIVERGING if change else SCALE,
            reversescale=change,  # more that is wrong is red
            zmin=-limit if change else 0,
            zmax=limit,
            text=[[str(value) if value else "" for value in row] for row in table.tolist()],
            texttemplate="%{text}" if len(one.classes) <= _WRITTEN else None,
            xgap=1,
            ygap=1,
            colorbar=colour_bar("more wrong" if change else "images"),
            hovertemplate="%{y} taken for %{x}: %{customdata}<extra></extra>",
        )
    )
    figure.update_xaxes(type="category", tickangle=-40, showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    what = f"What the merge changes about the mistakes on {title}" if change else f"Answers of {_TITLES[shown]} on {title}"
    return titled(figure, f"{what} ({len(one.labels)} images)", "answer", "true class", max(380, 140 + 16 * len(one.classes)))


def _signed(table: Tensor) -> Tensor:
    """Above 0 where the merge is worse: more answers beside the diagonal, or fewer on it."""
    found = table.clone()
    found.diagonal().neg_()
    return found
