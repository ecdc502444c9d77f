"""Figures of singular-value spectra and of where energy is concentrated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from torch import Tensor

from dcmerge.plots.style import ALIGNED, RAW, SCALE, SMOOTHED, colour_bar, square_size, task_colours, titled
from dcmerge.spectral.spectra import cumulative_energy
from dcmerge.studies.inspection import Concentration, LayerSpectra, TaskSpectrum
from dcmerge.vectors.naming import place_of

_OUTSIDE_COLUMN = "–"


def layer_overview(concentration: Concentration, chosen: str) -> go.Figure:
    """All matrices on a grid of depth x kind, coloured by energy concentration (mean over tasks); the chosen one is ringed.

    Matrices whose concentration is not known yet (NaN) are grey.
    """
    share = _percent(concentration.share.mean(dim=0)[None])[0]
    low, high = _whole_tens(share)
    known = [(name, value) for name, value in zip(concentration.layers, share, strict=True) if value is not None]
    places = [place_of(name) for name in concentration.layers]
    kinds = list(dict.fromkeys(place.kind for place in places))
    columns = _columns([_column(name) for name in concentration.layers])
    size = square_size(len(columns))
    figure = go.Figure(_squares([name for name, _ in known], chosen, size))
    figure.update_traces(
        marker={
            "color": [value for _, value in known],
            "colorscale": SCALE,
            "cmin": low,
            "cmax": high,
            "colorbar": colour_bar("% of s² in top 5 %"),
        },
        hovertemplate="%{customdata}<br>top 5 % of components hold %{marker.color:.0f} % of the energy<extra></extra>",
    )
    if unknown := [name for name, value in zip(concentration.layers, share, strict=True) if value is None]:
        come = _squares(unknown, chosen, size).update(
            name="still to come", marker={"color": RAW, "opacity": 0.3}, showlegend=False
        )
        figure.add_trace(come.update(hovertemplate="%{customdata}<br>still to come<extra></extra>"))
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=columns, showgrid=False)
    figure.update_yaxes(categoryorder="array", categoryarray=kinds, autorange="reversed", showgrid=False)
    title = "Every matrix by depth and kind: how concentrated is its energy?"
    return titled(figure, title, "block", "kind of matrix", 130 + 36 * len(kinds))


def _squares(names: Sequence[str], chosen: str, size: int) -> go.Scatter:
    """A square for each of these matrices, in its place; the chosen one has a ring."""
    return go.Scatter(
        x=[_column(name) for name in names],
        y=[place_of(name).kind for name in names],
        mode="markers",
        customdata=list(names),
        marker={
            "symbol": "square",
            "size": size,
            "line": {"width": [4 if name == chosen else 0 for name in names], "color": ALIGNED},
        },
    )


def _column(name: str) -> str:
    depth = place_of(name).depth
    return _OUTSIDE_COLUMN if depth is None else str(depth)


def _percent(shares: Tensor) -> list[list[float | None]]:
    """Rows in percent; None for NaN."""
    return [[None if math.isnan(value) else round(100 * value, 1) for value in row] for row in shares.tolist()]


def _whole_tens(*rows: Sequence[float | None]) -> tuple[float, float]:
    """The ends of a scale of percents: whole tens, so that colours hardly move while values still come."""
    known = [value for row in rows for value in row if value is not None] or [0.0, 100.0]
    return 10 * math.floor(min(known) / 10), 10 * math.ceil(max(known) / 10)


def _columns(x: Sequence[str]) -> list[str]:
    numbers = sorted({int(value) for value in x if value != _OUTSIDE_COLUMN})
    return [_OUTSIDE_COLUMN, *map(str, numbers)]


def spectrum_facets(spectra: LayerSpectra, titles: dict[str, str], *, whole: bool = True, columns: int = 4) -> go.Figure:
    """One small plot a task: raw, smoothed and aligned singular values, all on the same two axes.

    Without ``whole`` the axis ends a little after the kept components, which are what smoothing changes.

    Written as plain values and checked by plotly once: adding subplots, lines and titles one by one takes ten times as long.
    """
    last = None if whole or not spectra.rank else math.ceil(1.25 * spectra.rank) + 1
    columns = min(columns, len(spectra.tasks))
    rows = math.ceil(len(spectra.tasks) / columns)
    cells = [(_axis("x", place % columns), _axis("y", place // columns)) for place in range(len(spectra.tasks))]
    named = [titles.get(task.task, task.task) for task in spectra.tasks]
    lines = [
        line | {"xaxis": x, "yaxis": y, "meta": name}
        for place, (task, name, (x, y)) in enumerate(zip(spectra.tasks, named, cells, strict=True))
        for line in _stage_lines(task, spectra.smoothing, last, first=place == 0)
    ]
    above = [_facet_name(name, x, y) for name, (x, y) in zip(named, cells, strict=True)]
    layout = {
        "meta": {"x": "component", "y": "singular value"},
        "title": {"text": f"Singular values of {spectra.layer}", "x": 0, "font": {"size": 16}},
        "annotations": [*above, *_FACET_AXES],
        "shapes": [_kept_end(spectra.rank, x, y) for x, y in cells if spectra.rank],
        "height": 90 + 210 * rows,
        "margin": {"l": 70, "r": 10, "t": 90, "b": 60},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.1, "xanchor": "right", "x": 1},
    }
    return go.Figure(lines, layout | _facet_grid(rows, columns, [0, last] if last else None))


def _facet_name(name: str, x: str, y: str) -> dict[str, object]:
    """A task's name above its small plot; its words below each other, so that names fit beside each other on a phone."""
    text, place = name.replace(" ", "<br>"), {"x": 0.5, "y": 1, "yanchor": "bottom"}
    return {"text": text, "xref": f"{x} domain", "yref": f"{y} domain", **place, "showarrow": False, "font": {"size": 11}}


def _kept_end(rank: int, x: str, y: str) -> dict[str, object]:
    """The dotted line in a small plot where the kept components end."""
    line = {"dash": "dot", "width": 1, "color": RAW}
    return {"type": "line", "x0": rank, "x1": rank, "xref": x, "y0": 0, "y1": 1, "yref": f"{y} domain", "line": line}


def _facet_grid(rows: int, columns: int, shown: list[int] | None) -> dict[str, object]:
    """The grid, and its axes, each the same as the first of its direction."""
    axes: dict[str, object] = {"grid": {"rows": rows, "columns": columns, "pattern": "coupled", "xgap": 0.06, "ygap": 0.18}}
    for place in range(columns):
        axes[_layout_axis("x", place)] = {"matches": "x" if place else None, "range": shown}
    for place in range(rows):
        # Asked for: beside x axes that have a range, plotly leaves matched y axes at its default of five decades.
        log = {"type": "log", "autorange": True, "exponentformat": "power"}
        axes[_layout_axis("y", place)] = {"matches": "y" if place else None, **log}
    return axes


#: What the two shared axes are, once for all small plots.
_FACET_AXES = tuple(
    {"text": text, "xref": "paper", "yref": "paper", "showarrow": False, "font": {"size": 14}, **place}
    for text, place in (
        ("component (rank of the singular value)", {"x": 0.5, "y": 0, "yanchor": "top", "yshift": -28}),
        ("singular value (log scale)", {"x": 0, "y": 0.5, "xanchor": "right", "xshift": -36, "textangle": -90}),
    )
)


def _axis(letter: str, place: int) -> str:
    """Plotly's reference to the first, second, … axis: x, x2, …"""
    return letter if place == 0 else f"{letter}{place + 1}"


def _layout_axis(letter: str, place: int) -> str:
    """Plotly's name of the same axis in a layout: xaxis, xaxis2, …"""
    return _axis(f"{letter}axis", place)


def _stage_lines(task: TaskSpectrum, smoothing: str, last: int | None, *, first: bool) -> list[dict[str, object]]:
    """One line a stage, up to the last component; only the first task's lines stand in the legend, for all."""
    stages = (
        ("raw", task.raw[:last], RAW, 1.5),
        (f"smoothed ({smoothing})", task.smoothed, SMOOTHED, 3),
        ("aligned, kept and masked", task.aligned, ALIGNED, 1.5),
    )
    return [
        {
            "type": "scatter",
            "x": list(range(1, len(s) + 1)),
            "y": _positive(s),
            "mode": "lines",
            "name": name,
            "legendgroup": name,
            "showlegend": first,
            "line": {"color": colour, "width": width},
            "hovertemplate": "component %{x}: %{y:.3g}",
        }
        for name, s, colour, width in stages
    ]


def _positive(s: Tensor) -> list[float | None]:
    """Values for a logarithmic axis; what is numerically zero is left out."""
    floor = 1e-7 * s.max().item() if s.numel() else 0.0
    return [float(f"{value:.4g}") if value > floor else None for value in s.tolist()]


def cumulative_lines(spectra: LayerSpectra, titles: dict[str, str], power: int) -> go.Figure:
    """Share of the energy in the first j kept components, before (dashed) and after smoothing (solid), a colour a task."""
    unit = "s²" if power == 2 else "s"
    figure = go.Figure()
    colours = task_colours([task.task for task in spectra.tasks], titles)
    for task in spectra.tasks:
        name = titles.get(task.task, task.task)
        for stage, s, dash in (("raw", task.raw[: spectra.rank], "dot"), ("smoothed", task.smoothed, "solid")):
            figure.add_scatter(
                x=list(range(1, len(s) + 1)),
                y=(100 * cumulative_energy(s, power)).round(decimals=2).tolist(),
                mode="lines",
                name=name if stage == "smoothed" else f"{name}, {stage}",
                legendgroup=name,
                showlegend=stage == "smoothed",
                line={"dash": dash, "width": 2, "color": colours[task.task]},
                hovertemplate=f"{name}, {stage}: first %{{x}} hold %{{y:.1f}} %<extra></extra>",
            )
    figure.update_yaxes(range=[0, 102], ticksuffix=" %")
    titled(
        figure,
        f"Cumulative energy (sum of {unit}) of the {spectra.rank} kept components",
        "first j components",
        f"share of the sum of {unit}",
        420,
    )
    return figure.update_layout(legend={"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1, "yanchor": "top"})


def concentration_map(concentration: Concentration, titles: dict[str, str]) -> go.Figure:
    """Tasks x layers: share of the energy held by the leading 5 % of the components; cells that are not known yet are empty."""
    z = _percent(concentration.share)
    low, high = _whole_tens(*z)
    figure = go.Figure(
        go.Heatmap(
            z=z,
            zmin=low,
            zmax=high,
            x=[place_of(name).label for name in concentration.layers],
            y=[titles.get(task, task) for task in concentration.tasks],
            colorscale=SCALE,
            colorbar=colour_bar("% of s²"),
            hovertemplate="%{y}, %{x}<br>top 5 % hold %{z:.0f} % of the energy<extra></extra>",
        )
    )
    figure.update_xaxes(tickangle=-40)
    figure.update_yaxes(autorange="reversed")
    height = 240 + 26 * len(concentration.tasks)
    return titled(
        figure, "Energy (sum of s²) in the top 5 % of the components, every task and matrix", "matrix, by depth", "task", height
    )
