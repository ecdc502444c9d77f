"""What all figures share: layout, colours with a meaning, number formats."""

from __future__ import annotations

import plotly.graph_objects as go

#: Colours with a fixed meaning in every figure, readable on light and dark ground; the rest follows the app's theme.
RAW, SMOOTHED, ALIGNED = "#8a94a3", "#2b86d9", "#e07b00"
ZERO_SHOT, EXPERT, MERGED, PINNED = "#9aa3af", "#4b5b70", "#2b86d9", "#e07b00"
#: Whiskers of intervals, visible on both grounds beside any of the bars.
INTERVAL = "#78828f"
#: One colour a task or a method, in this order.
PALETTE = ("#2b86d9", "#e07b00", "#2a9d6e", "#c0487b", "#7a5cc9", "#a07a2b", "#3aa6b9", "#d1495b")
#: Sequential scale that ends away from both backgrounds.
SCALE = "Viridis"


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
