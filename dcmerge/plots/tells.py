"""Figures of a study of what tells: each measure's correlation against shuffled labels, and what choosing by it costs."""

from __future__ import annotations

import plotly.graph_objects as go

from dcmerge.plots.style import MERGED, RAW, bar_look, titled, whiskers
from dcmerge.studies.tells import SCOPES, Study

#: A figure has room for the axis and the title; then each measure has a row.
_ABOVE, _ROW = 150, 38
_BAND = 14


def correlation_figure(study: Study, scope: str, task: str | None = None, title: str = "") -> go.Figure:
    """Spearman's correlation of each measure with normalised accuracy, its interval, and the band of shuffled labels.

    ``title``: what the task is called.
    """
    found = {name: one for name in study.measures if (one := study.correlation(name, task, scope))}
    figure = go.Figure()
    figure.add_scatter(
        x=[end for one in found.values() for end in (*one.null, None)],
        y=[name for name in found for _ in range(3)],
        mode="lines",
        name="shuffled labels",
        line={"color": RAW, "width": _BAND},
        opacity=0.35,
        hovertemplate="%{y}, shuffled labels: to %{x:+.2f}<extra></extra>",
    )
    values = [one.value for one in found.values()]
    ends = whiskers(values, [one.low for one in found.values()], [one.high for one in found.values()])
    figure.add_scatter(
        x=values,
        y=list(found),
        mode="markers",
        name="measured",
        customdata=[[one.word, one.low, one.high, one.rows] for one in found.values()],
        marker={"color": MERGED, "size": 11},
        error_x=ends,
        hovertemplate="%{y}: %{x:+.2f} [%{customdata[1]:+.2f}, %{customdata[2]:+.2f}], %{customdata[0]}<extra></extra>",
    )
    figure.update_xaxes(range=[-1.05, 1.05], zeroline=True)
    figure.update_yaxes(type="category", autorange="reversed")
    where = f" on {title or task}" if task else ""
    head = f"Rank correlation of each measure with normalised accuracy{where}: {SCOPES[scope]}"
    return titled(figure, head, "Spearman's correlation", "measure", _ABOVE + _ROW * max(1, len(found)))


def regret_figure(study: Study, scope: str) -> go.Figure:
    """Points of normalised accuracy that choosing by each measure costs, beside what a blind choice costs."""
    found = {name: one for name in study.measures if (one := study.regret(name, scope))}
    points = {name: tuple(100 * value for value in (one.value, one.low, one.high)) for name, one in found.items()}
    values, lows, highs = ([ends[place] for ends in points.values()] for place in range(3))
    figure = go.Figure(
        go.Bar(
            x=values,
            y=list(points),
            orientation="h",
            marker=bar_look(MERGED),
            name="chosen by the measure",
            error_x=whiskers(values, lows, highs),
            customdata=[[low, high] for low, high in zip(lows, highs, strict=True)],
            hovertemplate="%{y}: %{x:.1f} points [%{customdata[0]:.1f}, %{customdata[1]:.1f}]<extra></extra>",
        )
    )
    if chance := study.chance(scope):
        figure.add_vline(
            x=100 * chance.value, line={"color": RAW, "dash": "dash"}, annotation_text="blind choice", annotation_position="top"
        )
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(type="category", autorange="reversed")
    title = f"What choosing by each measure costs against the best by labels: {SCOPES[scope]}"
    return titled(figure, title, "points of normalised accuracy", "measure", _ABOVE + _ROW * max(1, len(found)))
