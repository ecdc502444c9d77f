"""Figures of sweeps: accuracy against a parameter, a map of two, mean against worst task. Values first, then what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from dcmerge.evaluation.objectives import ACCURACIES, MEAN, WORST, Estimate
from dcmerge.methods.declare import value_text
from dcmerge.plots.style import MERGED, PALETTE, PINNED, RAW, SCALE, colour_bar, titled, whiskers
from dcmerge.studies.sweep import SCALE as ALPHA
from dcmerge.studies.sweep import Found, Point, described

#: The size of a point, and of the ring around the selected one.
_SIZE, _RING = 9, 17


@dataclass(frozen=True)
class Dot:
    """A point in a curve: its number, x (None where the axis does not matter to it), estimate, and a text for the cursor."""

    number: int
    x: float | None
    estimate: Estimate
    text: str
    stopped: bool


def curve_values(found: Found, axis: str, what: str) -> dict[str, list[Dot]]:
    """The points by what else was varied ("smoothing linear"), ascending in x. ``what``: mean, worst, or a task."""
    groups: dict[str, list[Dot]] = {}
    for point in sorted(found.points, key=lambda one: (_x(one, axis) is not None, _x(one, axis) or 0.0)):
        others = {name: value for name, value in point.values.items() if name not in (axis, ALPHA)}
        name = ", ".join(f"{key} {value_text(value)}" for key, value in others.items()) or found.plan.method.title
        stopped = f"<br>stopped after {point.images} images a task" if point.stopped else f", {point.images} images a task"
        dot = Dot(point.number, _x(point, axis), estimate_of(found, point, what), f"{described(point)}{stopped}", point.stopped)
        groups.setdefault(name, []).append(dot)
    return groups


def estimate_of(found: Found, point: Point, what: str) -> Estimate:
    """Mean, worst or one task's normalised accuracy of a point."""
    return found.estimate(point, what) if what in ACCURACIES else found.yardstick.tasks(point.hits)[what]


def _x(point: Point, axis: str) -> float | None:
    value = point.scale if axis == ALPHA else point.values.get(axis)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_log(found: Found, axis: str) -> bool:
    return next((one.log for one in found.plan.axes if one.name == axis), False)


def curve(found: Found, axis: str, label: str, what: str = MEAN, title: str = "", selected: int | None = None) -> go.Figure:
    """Normalised accuracy against a parameter, a line for each value of what else was varied, with 95 % intervals."""
    figure = go.Figure()
    for place, (name, dots) in enumerate(curve_values(found, axis, what).items()):
        colour = PALETTE[place % len(PALETTE)]
        _line(figure, name, [dot for dot in dots if dot.x is not None], colour, selected)
        for dot in dots:
            if dot.x is None:
                _band(figure, name, dot, colour)
    log = _is_log(found, axis)
    figure.update_xaxes(type="log" if log else "linear", minor={"ticks": "outside"} if log else None)
    figure.update_yaxes(ticksuffix=" %")
    y = ACCURACIES.get(what, "normalised accuracy")
    return titled(figure, title or f"{y[0].upper()}{y[1:]} against {label}", f"{label}{' (log scale)' if log else ''}", y, 430)


def _line(figure: go.Figure, name: str, dots: Sequence[Dot], colour: str, selected: int | None, **more: Any) -> None:
    if not dots:
        return
    values = [dot.estimate for dot in dots]
    figure.add_scatter(
        x=[dot.x for dot in dots],
        y=[100 * one.value for one in values],
        name=name,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={
            "color": colour,
            "size": [_RING if dot.number == selected else _SIZE for dot in dots],
            "symbol": ["circle-open" if dot.stopped else "circle" for dot in dots],
        },
        error_y=whiskers(
            [100 * one.value for one in values], [100 * one.low for one in values], [100 * one.high for one in values], colour
        ),
        text=[dot.text for dot in dots],
        customdata=[[dot.number, 100 * dot.estimate.low, 100 * dot.estimate.high] for dot in dots],
        hovertemplate="%{text}<br>%{y:.1f} % [%{customdata[1]:.1f}, %{customdata[2]:.1f}]<extra></extra>",
        **more,
    )


def _band(figure: go.Figure, name: str, dot: Dot, colour: str) -> None:
    """A point to which the axis does not matter: the same at every x."""
    low, high, value = 100 * dot.estimate.low, 100 * dot.estimate.high, 100 * dot.estimate.value
    figure.add_hrect(low, high, fillcolor=colour, opacity=0.08, line_width=0, name=f"{name}, 95 % interval")
    figure.add_hline(value, line={"color": colour, "width": 2, "dash": "dash"}, name=name)
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="lines",
        line={"color": colour, "width": 2, "dash": "dash"},
        name=f"{name}: {value:.1f} % [{low:.1f}, {high:.1f}]",
    )


def task_curves(found: Found, axis: str, label: str, titles: Mapping[str, str], columns: int = 4) -> go.Figure:
    """The same for every task, one small plot each, all on the same axes."""
    tasks = list(found.experts)
    rows = -(-len(tasks) // min(columns, len(tasks)))
    columns = min(columns, len(tasks))
    figure = go.Figure().set_subplots(
        rows, columns, shared_xaxes=True, shared_yaxes=True, subplot_titles=[titles.get(task, task) for task in tasks]
    )
    for place, task in enumerate(tasks):
        for group, (name, dots) in enumerate(curve_values(found, axis, task).items()):
            colour = PALETTE[group % len(PALETTE)]
            where = {"row": place // columns + 1, "col": place % columns + 1, "legendgroup": name, "showlegend": place == 0}
            where["meta"] = titles.get(task, task)
            shown = [dot for dot in dots if dot.x is not None]
            _line(figure, name, shown or _across(found, axis, dots), colour, None, **where)
    log = _is_log(found, axis)
    titled(figure, f"Normalised accuracy of every task against {label}", "", "", 110 + 190 * rows)
    figure.update_xaxes(type="log" if log else "linear")
    figure.update_yaxes(ticksuffix=" %")
    figure.update_xaxes(title_text=label, row=rows)
    figure.update_yaxes(title_text="of the expert", col=1)
    return figure


def _across(found: Found, axis: str, dots: Sequence[Dot]) -> list[Dot]:
    """A point without x at both ends of the axis, so that a small plot shows it as a line."""
    own = next(one for one in found.plan.axes if one.name == axis)
    ends = own.values(2) if own.is_range else (min(own.options), max(own.options))
    return [Dot(dot.number, float(x), dot.estimate, dot.text, dot.stopped) for dot in dots for x in (ends[0], ends[-1])]


def map_values(found: Found, x: str, y: str) -> list[tuple[float, float, float, int, float, str]]:
    """(x, y, mean normalised accuracy, point, α, text). With α on an axis every α that was tried is a place of its own."""
    places = []
    for point in found.points:
        arms = point.arms if ALPHA in (x, y) else point.arms[:1]
        for arm in arms:
            at = {ALPHA: arm.scale}
            left, up = at.get(x, _x(point, x)), at.get(y, _x(point, y))
            if left is None or up is None:
                continue
            value = found.yardstick.estimate(arm.hits, MEAN).value
            own = ", ".join(f"{name} {value_text(v)}" for name, v in point.values.items() if name != ALPHA)
            text = f"{own}{', ' if own else ''}α {arm.scale:g}, {arm.images} images a task"
            places.append((left, up, value, point.number, arm.scale, text))
    return sorted(places, key=lambda place: place[2])


def parameter_map(
    found: Found, x: str, y: str, labels: Mapping[str, str], selected: tuple[int, float] | None = None
) -> go.Figure:
    """Two parameters, coloured by the mean normalised accuracy; every square is something that was measured."""
    places = map_values(found, x, y)
    figure = go.Figure(
        go.Scatter(
            x=[place[0] for place in places],
            y=[place[1] for place in places],
            mode="markers",
            customdata=[[place[3], place[4]] for place in places],
            text=[place[5] for place in places],
            marker={
                "symbol": "square",
                "size": 20,
                "color": [100 * place[2] for place in places],
                "colorscale": SCALE,
                "colorbar": colour_bar("% of expert"),
                "line": {
                    "width": [3 if (place[3], place[4]) == selected else 0.5 for place in places],
                    "color": [PINNED if (place[3], place[4]) == selected else RAW for place in places],
                },
            },
            hovertemplate="%{text}<br>%{marker.color:.1f} %<extra></extra>",
        )
    )
    logs = {one.name: one.log for one in found.plan.axes} | ({} if _swept(found, ALPHA) else {ALPHA: True})
    figure.update_xaxes(type="log" if logs.get(x) else "linear")
    figure.update_yaxes(type="log" if logs.get(y) else "linear")
    names = [f"{labels.get(name, name)}{' (log scale)' if logs.get(name) else ''}" for name in (x, y)]
    title = f"Mean normalised accuracy by {labels.get(x, x)} and {labels.get(y, y)}"
    return titled(figure, title, names[0], names[1], 430)


def _swept(found: Found, name: str) -> bool:
    return name in {one.name for one in found.plan.axes}


def mean_against_worst(found: Found, selected: int | None = None) -> go.Figure:
    """Every point's mean against its worst task, both normalised; the points that no other beats in both are joined."""
    points = found.whole
    places = {p.number: (found.estimate(p, MEAN).value, found.estimate(p, WORST).value) for p in points}
    best = [n for n, (a, b) in places.items() if not any(c >= a and d >= b and (c, d) != (a, b) for c, d in places.values())]
    figure = go.Figure()
    edge = sorted(best, key=lambda number: places[number])
    figure.add_scatter(
        x=[100 * places[number][0] for number in edge],
        y=[100 * places[number][1] for number in edge],
        mode="lines",
        line={"color": PINNED, "dash": "dot"},
        name="front",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[100 * places[p.number][0] for p in points],
        y=[100 * places[p.number][1] for p in points],
        mode="markers",
        name="points",
        marker={
            "color": [PINNED if p.number in best else MERGED for p in points],
            "size": [_RING if p.number == selected else _SIZE + 2 for p in points],
        },
        text=[described(p) for p in points],
        customdata=[[p.number, found.yardstick.worst_task(p.hits)] for p in points],
        hovertemplate="%{text}<br>mean %{x:.1f} %, worst task %{customdata[1]} %{y:.1f} %<extra></extra>",
    )
    figure.update_xaxes(ticksuffix=" %")
    figure.update_yaxes(ticksuffix=" %")
    title = "The mean against the worst task: what one costs the other"
    return titled(figure, title, ACCURACIES[MEAN], "the worst task's", 400)
