"""Figures of methods side by side: tasks x methods, accuracy against cost, directions and features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from dcmerge.evaluation import SPLIT_NAMES
from dcmerge.plots.style import SCALE, ZERO_SHOT, bar_look, colour_bar, method_looks, titled, whiskers
from dcmerge.studies.comparison import Comparison
from dcmerge.studies.measuring import Row

#: Normalised accuracy from which the cells are so light that their text is dark.
_LIGHT = 60


def normalised_map(comparison: Comparison, titles: Mapping[str, str]) -> go.Figure:
    """Tasks x methods: normalised accuracy, references included; an expert without a hit leaves its cells empty."""
    rows = [row for row in comparison.rows if row.evaluation]
    tasks = list(rows[0].measured.tasks)
    x, y = [row.title for row in rows], [titles.get(task, task) for task in tasks]
    z = [[_percent(row.measured.tasks[task].normalised) for row in rows] for task in tasks]
    absolute = [[100 * row.measured.tasks[task].accuracy for row in rows] for task in tasks]
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=x,
            y=y,
            customdata=absolute,
            colorscale=SCALE,
            zmin=0,
            zmax=100,
            colorbar=colour_bar("% of expert"),
            hovertemplate="%{y}, %{x}: %{z:.1f} % of the expert's accuracy (%{customdata:.1f} % absolute)<extra></extra>",
        )
    )
    _write_in_cells(figure, x, y, z)
    figure.update_xaxes(tickangle=-40)
    figure.update_yaxes(autorange="reversed")
    return titled(
        figure,
        f"Normalised accuracy of every method on every task, in percent ({comparison.measured_on})",
        "method",
        "task",
        260 + 28 * len(tasks),
    )


def _write_in_cells(
    figure: go.Figure, columns: Sequence[str], lines: Sequence[str], cells: Sequence[Sequence[float | None]]
) -> None:
    """The numbers as a trace of their own: a heatmap's own text is dark on cells in the middle of the scale."""
    every = [(x, y, value) for y, line in zip(lines, cells, strict=True) for x, value in zip(columns, line, strict=True)]
    filled = [(x, y, value) for x, y, value in every if value is not None]
    figure.add_scatter(
        x=[x for x, _, _ in filled],
        y=[y for _, y, _ in filled],
        text=[f"{value:.0f}" for _, _, value in filled],
        mode="text",
        textfont={"color": ["#000000" if value >= _LIGHT else "#ffffff" for _, _, value in filled]},
        hoverinfo="skip",
        showlegend=False,
    )


#: Left and right of the points, as a share of the width that they take.
_EDGE = 0.07
#: Width of a letter in shares of the plot's width, on a computer's screen and on a phone.
_LETTER, _PHONE_LETTER = 0.009, 0.03


def accuracy_against_cost(comparison: Comparison) -> go.Figure:
    """Mean accuracy against seconds of merging, a labelled point a method with its 95 % interval; references as lines."""
    rows = sorted((row for row in comparison.rows if row.evaluation and not row.is_reference), key=_cost)
    figure = go.Figure()
    looks = method_looks([row.slug for row in rows])
    for row, side, (colour, _) in zip(rows, _label_sides(rows), looks, strict=True):
        mean, (low, high) = row.measured.mean, row.measured.mean_interval
        figure.add_scatter(
            x=[_cost(row)],
            y=[100 * mean],
            mode="markers+text",
            text=[row.title],
            name=row.title,
            showlegend=False,
            textposition=side,
            marker={"size": 11, "color": colour},
            error_y=whiskers([100 * mean], [100 * low], [100 * high]),
            customdata=[[100 * low, 100 * high, row.took.merge, row.took.scale]],
            hovertemplate="%{text}: %{y:.1f} % [%{customdata[0]:.1f}, %{customdata[1]:.1f}]<br>merge %{customdata[2]:.2f} s, "
            "then search for α %{customdata[3]:.1f} s<extra></extra>",
        )
    for row in comparison.rows:
        if row.is_reference and row.evaluation:
            figure.add_hline(
                100 * row.evaluation.mean,
                line={"dash": "dot", "width": 1.5, "color": ZERO_SHOT},
                annotation_text=row.title,
                name=row.title,
                annotation_position="top left",
            )
    figure.update_xaxes(type="log", minor={"ticks": "outside"}, range=_cost_range(rows))
    figure.update_yaxes(ticksuffix=" %")
    return titled(
        figure,
        f"What accuracy costs: mean over tasks against seconds of merging ({comparison.measured_on})",
        "seconds to merge (log scale)",
        "mean top-1 accuracy",
        520,
    )


def _cost(row: Row) -> float:
    return max(0.01, row.took.merge)


def _cost_range(rows: Sequence[Row]) -> tuple[float, float] | None:
    """Decades of the axis: from the cheapest to the dearest row, and an edge on both sides."""
    if not rows:
        return None
    low, high = math.log10(_cost(rows[0])), math.log10(_cost(rows[-1]))
    edge = _EDGE * max(high - low, 1.0)
    return low - edge, high + edge


def _label_sides(rows: Sequence[Row]) -> list[str]:
    """Where each point's label stands: on the first side on which it is in the plot and covers no label that is already there."""
    if not rows:
        return []
    lowest, decades = _cost(rows[0]), max(1e-9, math.log10(_cost(rows[-1]) / _cost(rows[0])))
    means = [row.measured.mean for row in rows]
    height = max(0.2, max(means) - min(means))
    placed: list[tuple[float, float, float]] = []  # left and right end and height of a label, in shares of the plot
    chosen = []
    for row in rows:
        x, y, width = math.log10(_cost(row) / lowest) / decades, row.measured.mean / height, _LETTER * len(row.title)
        spots, phone = _spots(x, y, width), _PHONE_LETTER * len(row.title)
        inside, narrow = _inside(spots, width), _inside(_spots(x, y, phone), phone)
        free = [
            side
            for side, (left, at) in spots.items()
            if not any(abs(at - other) < 0.045 and left < end and start < left + width for start, end, other in placed)
        ]
        side = next((side for side in (*narrow, *inside) if side in free), (inside or free or ["top center"])[0])
        left, at = spots[side]
        placed.append((left, left + width, at))
        chosen.append(side)
    return chosen


def _spots(x: float, y: float, width: float) -> dict[str, tuple[float, float]]:
    """Where a point's label can stand: left end and height of each, in shares of the plot."""
    return {
        "middle right": (x + 0.01, y),
        "middle left": (x - 0.01 - width, y),
        "top center": (x - width / 2, y + 0.05),
        "bottom center": (x - width / 2, y - 0.05),
    }


def _inside(spots: Mapping[str, tuple[float, float]], width: float) -> list[str]:
    """The sides on which a label of this width is in the plot."""
    return [side for side, (left, _) in spots.items() if left >= -_EDGE and left + width <= 1 + _EDGE]


def dirsim_bars(comparison: Comparison) -> go.Figure:
    """DirSim of every method with the experts, mean over matrices and experts; whiskers: least and best kept expert."""
    rows = [(row.title, row.dirsim) for row in comparison.rows if row.dirsim]
    looks = method_looks([row.slug for row in comparison.rows if row.dirsim])
    means = [found.mean for _, found in rows]
    ends = [(min(found.tasks.values()), max(found.tasks.values())) for _, found in rows]
    figure = go.Figure(
        go.Bar(
            x=[title for title, _ in rows],
            y=means,
            marker=bar_look([colour for colour, _ in looks]),
            customdata=ends,
            error_y=whiskers(means, [low for low, _ in ends], [high for _, high in ends]),
            hovertemplate="%{x}: %{y:.3f}, experts %{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>",
        )
    )
    figure.update_xaxes(tickangle=-40)
    figure.update_yaxes(rangemode="tozero")
    return titled(
        figure, "DirSim: how far each merged task vector still points where the experts pointed", "method", "DirSim, 0 to 1", 420
    )


def drift_lines(comparison: Comparison, *, relative: bool = True) -> go.Figure:
    """Feature drift by depth, a line a method: in units of the base's drift, or as mean squared difference (log scale)."""
    rows = [(row.title, row.drift) for row in comparison.rows if row.drift]
    looks = method_looks([row.slug for row in comparison.rows if row.drift])
    figure = go.Figure()
    for (title, drift), (colour, dash) in zip(rows, looks, strict=True):
        figure.add_scatter(
            x=list(drift.places),
            y=list(drift.relative if relative else drift.mean),
            mode="lines+markers",
            name=title,
            hovertemplate="%{x}: %{y:.3g}",
            line={"color": colour, "width": 2, "dash": dash},
        )
    first = rows[0][1] if rows else None
    if first:
        base = [1.0] * len(first.places) if relative else _column_means(first.base)
        figure.add_scatter(
            x=list(first.places),
            y=base,
            mode="lines",
            name="the base",
            hovertemplate="%{x}: %{y:.3g}",
            line={"color": ZERO_SHOT, "width": 2, "dash": "dot"},
        )
    figure.update_yaxes(rangemode="tozero") if relative else figure.update_yaxes(type="log", exponentformat="power")
    unit = "1 is the base's drift" if relative else "mean squared difference"
    split = SPLIT_NAMES.get(comparison.split, comparison.split)
    images = f"{split} split, {first.images} images a task" if first else "not measured"
    titled(
        figure,
        f"Feature drift by depth: how far the features lie from each expert's ({images})",
        "place in the encoder",
        f"feature drift ({unit})",
        470,
    )
    return figure.update_layout(legend={"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1, "yanchor": "top"})


def loss_lines(comparison: Comparison) -> go.Figure:
    """The loss of every training step, a line a method that trains; each is divided by its first one, as losses differ."""
    figure = go.Figure()
    rows = [row for row in comparison.rows if row.curve]
    for row, (colour, dash) in zip(rows, method_looks([row.slug for row in rows]), strict=True):
        first = abs(row.curve[0]) or 1.0
        figure.add_scatter(
            x=list(range(1, len(row.curve) + 1)),
            y=[loss / first for loss in row.curve],
            mode="lines",
            name=row.title,
            customdata=list(row.curve),
            hovertemplate="step %{x}: %{y:.2f} of the first, loss %{customdata:.3g}",
            line={"color": colour, "width": 1.5, "dash": dash},
        )
    figure.update_xaxes(type="log")
    title = "What the methods that train minimise, step by step"
    return titled(figure, title, "step (log scale)", "loss over the first loss", 380)


def _column_means(table: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(column) for column in zip(*table, strict=True)]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
