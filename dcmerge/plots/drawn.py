"""The values that a figure draws, read from the figure itself: as CSV, and as a sentence for those who cannot see it.

Whatever a figure function makes is read the same way. Names come from the figure: a trace's ``name`` is the series, its
``meta`` the small plot that it lies in, the axes' titles are the columns. A line or a band across the whole plot counts where
its shape has a ``name``. Traces that only decorate have ``hoverinfo="skip"`` and are left out.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import plotly.graph_objects as go

#: The sentence names so many series, and of more only the whole.
_NAMED = 8
_BOOKKEEPING = ("plot", "series")

Value = float | int | str
Record = dict[str, Value]


def drawn(figure: go.Figure) -> list[Record]:
    """One record a point, bar or cell, as {column: value}: plot, series, both axes, low and high of an interval, colour."""
    return [record for trace in _traces(figure) for record in _of_trace(figure, trace)] + list(_of_shapes(figure))


def as_csv(figure: go.Figure) -> str:
    """All of ``drawn`` with every digit; a column that no record fills is left out."""
    records = drawn(figure)
    columns = list(dict.fromkeys(name for record in records for name in record))
    first = [name for name in _BOOKKEEPING if name in columns]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*first, *(name for name in columns if name not in first)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def summary(figure: go.Figure) -> str:
    """The least and the largest value of every series, and where they are; empty of a figure without values."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for trace in _traces(figure):
        groups.setdefault(_text(trace.name) if trace.name else "", []).extend(_extremes(figure, trace))
    groups = {name: found for name, found in groups.items() if found}
    if len(groups) > _NAMED:
        groups = {f"All {len(groups)} series": [one for found in groups.values() for one in found]}
    return " ".join(_sentence(name, found) for name, found in groups.items())


def file_name(title: str) -> str:
    """A figure's title as a file's name without its ending: "Singular values of MLP in" as "singular-values-of-mlp-in"."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\(.*?\)", "", title.lower()))
    return "-".join(words)[:60].strip("-") or "chart"


def _traces(figure: go.Figure) -> Sequence[Any]:
    data: Any = figure.data  # plotly makes its attributes at run time
    return data


def _of_trace(figure: go.Figure, trace: Any) -> Iterator[Record]:
    if trace.type == "parcoords":
        yield from _of_lines(trace)
        return
    x, y, value = _columns(figure, trace)
    where: Record = {"plot": _text(trace.meta)} if trace.meta else {}
    where |= {"series": _text(trace.name)} if trace.name else {}
    for at_x, at_y, rest in _points(trace):
        yield {**where, x: at_x, y: at_y, **({value: rest.pop("value")} if "value" in rest else {}), **rest}


def _points(trace: Any) -> Iterator[tuple[Value, Value, Record]]:
    """x, y, and what else a point shows; nothing of what only decorates, and no point without a value."""
    if trace.hoverinfo == "skip" or trace.x is None:
        return
    if trace.type == "heatmap":
        across = trace.x  # reading an attribute of a trace takes long
        for line, row in zip(trace.y, trace.z, strict=True):
            yield from ((x, line, {"value": value}) for x, value in zip(across, row, strict=True) if value is not None)
        return
    lengths, up = _whiskers(trace)
    colours, notes = _colours(trace), _notes(trace)
    for place, (x, y) in enumerate(zip(trace.x, trace.y, strict=True)):
        if x is None or y is None:
            continue
        rest: Record = {"low": y - lengths[place], "high": y + up[place]} if up else {}
        rest |= {"value": colours[place]} if colours else {}
        yield x, y, rest | ({"setting": notes[place]} if notes else {})


def _whiskers(trace: Any) -> tuple[Sequence[float], Sequence[float]]:
    """How far the whiskers of a trace reach down and up; empty of a trace without."""
    bars = trace.error_y
    return (bars.arrayminus if bars.arrayminus is not None else bars.array or (), bars.array or ())


def _colours(trace: Any) -> Sequence[float]:
    """The numbers that a colour scale shows; empty where colours only tell series apart."""
    colour = trace.marker.color
    if colour is None or isinstance(colour, str) or not len(colour) or isinstance(colour[0], str):
        return ()
    return colour


def _notes(trace: Any) -> Sequence[str]:
    """Texts that only the cursor shows: what a point was made with."""
    written = "text" in (trace.mode or "") if trace.type == "scatter" else True
    return () if written or trace.text is None or isinstance(trace.text, str) else [_text(one) for one in trace.text]


def _of_lines(trace: Any) -> Iterator[Record]:
    """Parallel coordinates: a record a line, a column an axis."""
    columns = {_text(axis.label): _axis_values(axis) for axis in trace.dimensions}
    for line in zip(*columns.values(), strict=True):
        yield dict(zip(columns, line, strict=True))


def _axis_values(axis: Any) -> list[Value]:
    """What an axis says: its own texts for categories, and the number itself where it is drawn by its logarithm."""
    ticks: dict[Any, Any] = dict(zip(axis.tickvals or (), axis.ticktext or (), strict=False))
    if ticks and all(_is_logarithm(place, text) for place, text in ticks.items()):
        return [10.0**value for value in axis.values]
    return [ticks.get(value, value) for value in axis.values]


def _is_logarithm(place: float, text: str) -> bool:
    try:
        return math.isclose(10.0**place, float(text), rel_tol=0.01)
    except (ValueError, OverflowError):
        return False


def _of_shapes(figure: go.Figure) -> Iterator[Record]:
    """Named lines and bands that go across the plot."""
    layout: Any = figure.layout  # plotly makes its attributes at run time
    x, y = _axis_title(figure, "x"), _axis_title(figure, "y")
    for shape in layout.shapes:
        if not shape.name:
            continue
        if shape.type == "rect":
            yield {"series": _text(shape.name), "low": shape.y0, "high": shape.y1}
        else:
            yield {"series": _text(shape.name), **({y: shape.y0} if shape.y0 == shape.y1 else {x: shape.x0})}


def _columns(figure: go.Figure, trace: Any) -> tuple[str, str, str]:
    """Names of the two axes and of what the colour shows."""
    x, y = _axis_title(figure, "x"), _axis_title(figure, "y")
    bar = figure.layout.coloraxis.colorbar if "coloraxis" in figure.layout else None  # pyright: ignore
    holder = trace if trace.type == "heatmap" else getattr(trace, "marker", None)
    own = holder.colorbar if holder is not None and holder.colorbar.title.text else bar
    title = own.title.text if own is not None else None
    return x, y if y != x else f"{y} (upwards)", _text(title) if title else "value"


def _axis_title(figure: go.Figure, letter: str) -> str:
    """The title of the first axis of that direction that has one; else what the figure's ``meta`` calls it."""
    layout: Any = figure.layout
    axes = figure.select_xaxes() if letter == "x" else figure.select_yaxes()
    told = next((axis.title.text for axis in axes if axis.title.text), None)
    return _text(told or (layout.meta or {}).get(letter) or letter)


def _text(text: Any) -> str:
    """Without plotly's marks for bold type and line breaks."""
    return re.sub(r"<[^>]+>", " ", str(text)).strip()


def _extremes(figure: go.Figure, trace: Any) -> list[tuple[float, str]]:
    """The least and the largest number of a trace, each with its place."""
    if trace.type == "parcoords":
        axis = trace.dimensions[0]
        return [(value, f"the axis {_text(axis.label)}") for value in (min(axis.values), max(axis.values))]
    if trace.type == "heatmap":
        return _cells(trace)
    flat = trace.type == "bar" and trace.orientation == "h"
    points = [(rest.get("value", x if flat else y), x, y, "value" in rest) for x, y, rest in _points(trace)]
    points = [point for point in points if isinstance(point[0], (int, float))]
    if not points:
        return []
    plot = f"{_text(trace.meta)}, " if trace.meta else ""
    found = []
    for value, x, y, coloured in (min(points, key=itemgetter(0)), max(points, key=itemgetter(0))):
        place = f"{_short(x)}, {_short(y)}" if coloured else _short(y if flat else x)
        found.append((float(value), f"{plot}{place}"))
    return found


def _cells(trace: Any) -> list[tuple[float, str]]:
    """The same of a heatmap, which may have many thousands of cells."""
    rows = [[value for value in row if value is not None] for row in trace.z]
    values = [value for row in rows for value in row]
    found = []
    for value in (min(values), max(values)) if values else ():
        line = next(place for place, row in enumerate(rows) if value in row)
        column = list(trace.z[line]).index(value)
        found.append((float(value), f"{_short(trace.x[column])}, {_short(trace.y[line])}"))
    return found


def _sentence(name: str, found: Sequence[tuple[float, str]]) -> str:
    (low, at_low), (high, at_high) = min(found), max(found)
    whose = f"{name}: " if name else ""
    if low == high and at_low == at_high:
        return f"{whose}{_short(low)} at {at_low}."
    return f"{whose}lowest {_short(low)} at {at_low}, highest {_short(high)} at {at_high}."


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else _text(value)
