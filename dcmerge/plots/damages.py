"""Figures of a damage map: one square a part and task, single repairs beside the joint one, and what a repair costs."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from dcmerge.plots.style import DIVERGING, EXPERT, MERGED, PINNED, bar_look, colour_bar, square_size, titled, whiskers
from dcmerge.studies.damage import DamageMap
from dcmerge.studies.damage.tables import label_of

#: From worse to better; the middle is grey on both grounds. Squares within the noise are drawn that faint.
_FAINT = 0.22
_ALL = "<b>all tasks</b>"
_ROW, _FEWEST_POINTS = 30, 5.0


def map_figure(
    found: DamageMap, change: str, titles: Mapping[str, str], images: int | None = None, chosen: str = ""
) -> go.Figure:
    """Accuracy after each part was changed minus before, in points, by part and task; what lies within the noise is faint."""
    cells = [(unit, task, found.cell(change, unit, task, images)) for unit in found.units for task in found.tasks]
    cells += [(unit, _ALL, found.over_tasks(change, unit, images)) for unit in found.units]
    limit = max([_FEWEST_POINTS, *(abs(100 * cell.value) for _, _, cell in cells)])
    figure = go.Figure(
        go.Scatter(
            x=[titles.get(task, task) for _, task, _ in cells],
            y=[label_of(unit) for unit, _, _ in cells],
            mode="markers",
            customdata=[
                [unit, task, 100 * cell.low, 100 * cell.high, cell.images, 100 * cell.value] for unit, task, cell in cells
            ],
            marker={
                "symbol": "square",
                "size": square_size(len(found.tasks) + 1),
                "color": [100 * cell.value for *_, cell in cells],
                "cmin": -limit,
                "cmax": limit,
                "colorscale": DIVERGING,
                "opacity": [1.0 if cell.excludes_zero else _FAINT for *_, cell in cells],
                "colorbar": colour_bar("points") | {"y": 0.0, "yanchor": "top"},  # names are above
                "line": {"width": [3 if unit == chosen else 0 for unit, *_ in cells], "color": PINNED},
            },
            hovertemplate="%{y}, %{x}<br>%{customdata[5]:+.1f} points [%{customdata[2]:+.1f}, %{customdata[3]:+.1f}] on "
            "%{customdata[4]} images<extra></extra>",
        )
    )
    figure.update_xaxes(type="category", showgrid=False, side="top")
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, ticklabelstandoff=6)
    shown = min(images or found.images, found.images)
    title = f"Change of accuracy when one part is changed, by part and task ({shown} validation images a task)"
    return titled(figure, title, "task", "part of the model", 150 + _ROW * len(found.units))


def sums_figure(found: DamageMap, change: str, titles: Mapping[str, str], images: int | None = None) -> go.Figure:
    """The sum of the single changes beside all of them at once, by task."""
    names = [titles.get(task, task) for task in found.tasks]
    figure = go.Figure()
    figure.add_bar(
        x=names,
        y=[100 * found.singles(change, task, images) for task in found.tasks],
        name="sum of the single changes",
        marker=bar_look(MERGED),
        hovertemplate="%{x}: %{y:+.1f} points<extra></extra>",
    )
    joint = [one for task in found.tasks if (one := found.joint(change, task, images))]
    if joint:
        values = [100 * one.value for one in joint]
        figure.add_bar(
            x=names,
            y=values,
            name="all parts at once",
            marker=bar_look(EXPERT),
            error_y=whiskers(values, [100 * one.low for one in joint], [100 * one.high for one in joint]),
            hovertemplate="%{x}: %{y:+.1f} points<extra></extra>",
        )
    figure.update_layout(barmode="group")
    return titled(figure, "Single changes added up, beside all at once", "task", "percentage points", 340)


def repair_figure(found: DamageMap) -> go.Figure:
    """Mean accuracy against what is kept beside the merged model, the best parts repaired."""
    figure = go.Figure(
        go.Scatter(
            x=[100 * one.share for one in found.repaired],
            y=[100 * one.mean for one in found.repaired],
            mode="lines+markers+text",
            text=[str(len(one.parts)) for one in found.repaired],
            textposition="top center",
            customdata=[[", ".join(map(label_of, one.parts)) or "nothing repaired"] for one in found.repaired],
            line={"color": MERGED},
            hovertemplate="%{customdata[0]}<br>%{y:.1f} %, %{x:.0f} % of the model kept beside it<extra></extra>",
        )
    )
    figure.update_xaxes(ticksuffix=" %", rangemode="tozero")
    figure.update_yaxes(ticksuffix=" %")
    x = "numbers kept beside the merged model, of the model's"
    return titled(figure, "What repairing the best parts gains, and what it costs", x, "mean accuracy", 340)
