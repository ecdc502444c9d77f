"""What all figures share: layout, colours with a meaning, number formats.

Colours are the theme's, by place: Streamlit's charts replace "#000001" by the theme's first colour and so on, in light and dark,
also where two digits of opacity follow. So one figure suits both, and changes with the theme at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from dcmerge.methods import methods

#: One colour a task or a method: the eight of the theme's chartCategoricalColors.
PALETTE = tuple(f"#00000{place}" for place in range(1, 9))
#: Text and whiskers: nearly black on light ground, nearly white on dark.
TEXT = "#000037"
_GREY = "#808791"  # seen on both grounds
#: Colours with a fixed meaning in every figure.
RAW, SMOOTHED, ALIGNED = _GREY, PALETTE[0], PALETTE[1]
ZERO_SHOT, EXPERT, MERGED, PINNED = _GREY, PALETTE[3], PALETTE[0], PALETTE[1]
#: How solid bars are: whiskers of the colour of text stand out from them on both grounds.
BAR_OPACITY = 0.55
#: The methods that are compared most have colours of their own; after them lines differ by dash as well.
_FIRST = ("dc_merge", "average", "task_arithmetic", "ties", "tsv_m", "iso_c", "iso_cts", "wudi")
_DASHES = ("solid", "dash", "dot", "dashdot")
#: The smallest square of a map, and the width that a plot has on a phone, in pixels.
_SMALLEST, _PHONE = 10, 150
#: Sequential scale that ends away from both backgrounds.
SCALE = "Viridis"
#: From below 0 (or worse) to above, grey in the middle on both grounds.
DIVERGING = ((0.0, "#c0487b"), (0.5, "#a9b1bc"), (1.0, "#2b86d9"))


#: The theme's categorical colours and its text on white, for pictures outside of the app (.streamlit/config.toml has them too).
LIGHT = ("#2574b0", "#c68206", "#7c140a", "#4e9f9c", "#052daa", "#956045", "#b96ffa", "#5c2d60")
_TEXT_ON_WHITE = "#262730"


def on_white(text: str) -> str:
    """A figure's JSON with the light theme's colours in place of the app's places."""
    for place, colour in zip((*PALETTE, TEXT), (*LIGHT, _TEXT_ON_WHITE), strict=True):
        text = text.replace(place, colour)
    return text


def titled(figure: go.Figure, title: str, x: str, y: str, height: int = 380) -> go.Figure:
    """A title that says what is shown, and axes with names and units."""
    figure.update_layout(
        title={"text": title, "x": 0, "xanchor": "left", "font": {"size": 16}},
        height=height,
        margin={"l": 10, "r": 10, "t": 60, "b": 10},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "right", "x": 1},
        hoverlabel={"namelength": -1},
    )
    figure.update_xaxes(title_text=x, automargin=True)
    figure.update_yaxes(title_text=y, automargin=True)
    return figure


def colour_bar(title: str) -> dict[str, Any]:
    """``colorbar`` that lies above the plot: beside it, it would take a third of a phone's width."""
    return {
        "title": {"text": title, "side": "top"},
        "orientation": "h",
        "tickangle": 0,
        "thickness": 10,
        "len": 140,
        "lenmode": "pixels",
        "x": 0,
        "xanchor": "left",
        "y": 1.0,
        "yanchor": "bottom",
        "ypad": 4,
    }


def square_size(columns: int, width: int = _PHONE, largest: int = 26) -> int:
    """Pixels of one square of a map, so that all fit beside each other into a width; never too few to click."""
    return max(_SMALLEST, min(largest, width // max(columns, 1)))


def readable(figure: go.Figure) -> go.Figure:
    """The same figure with ticks and titles in the colour of text: the theme's own grey has 3.7:1 on white."""
    figure.update_layout(font_color=TEXT)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(tickfont_color=TEXT, title_font_color=TEXT)
    return figure.update_coloraxes(colorbar={"tickfont": {"color": TEXT}, "title": {"font": {"color": TEXT}}})


def faint(colour: str, opacity: float) -> str:
    """The same colour so that what lies behind shows through."""
    return f"{colour}{round(255 * opacity):02x}"


def bar_look(colours: str | Sequence[str]) -> dict[str, Any]:
    """``marker`` of bars: a fill on which whiskers can be seen, and an edge in the full colour."""
    fill = faint(colours, BAR_OPACITY) if isinstance(colours, str) else [faint(one, BAR_OPACITY) for one in colours]
    return {"color": fill, "line": {"color": colours if isinstance(colours, str) else list(colours), "width": 1.5}}


def whiskers(values: Sequence[float], lows: Sequence[float], highs: Sequence[float], colour: str = TEXT) -> dict[str, Any]:
    """``error_y`` from the ends of the intervals around the values."""
    return {
        "type": "data",
        "symmetric": False,
        "thickness": 1.5,
        "width": 4,
        "color": colour,
        "array": [high - value for high, value in zip(highs, values, strict=True)],
        "arrayminus": [value - low for low, value in zip(lows, values, strict=True)],
    }


def known(value: float | None) -> float | None:
    """The value as plotly draws it: nothing where it is not known (NaN)."""
    return None if value is None or value != value else value


def task_colours(tasks: Sequence[str], titles: Mapping[str, str]) -> dict[str, str]:
    """A colour for every task, the same in all figures of a set: by its place among the set's ``titles``."""
    places = {task: place for place, task in enumerate([*titles, *(task for task in tasks if task not in titles)])}
    return {task: PALETTE[places[task] % len(PALETTE)] for task in tasks}


def method_looks(slugs: Sequence[str]) -> list[tuple[str, str]]:
    """(colour, dash) of each method, the same in all figures; the second row of a method takes the next free dash."""
    known = [*_FIRST, *(slug for slug in methods() if slug not in _FIRST)]
    found: list[tuple[str, str]] = []
    for slug in slugs:
        home = known.index(slug) if slug in known else len(known)
        options = [
            (PALETTE[(home + colour) % len(PALETTE)], _DASHES[(home // len(PALETTE) + dash) % len(_DASHES)])
            for colour in range(len(PALETTE))
            for dash in range(len(_DASHES))
        ]
        found.append(next((look for look in options if look not in found), options[0]))
    return found
