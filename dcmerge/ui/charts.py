"""How every figure is shown: with a text for those who cannot see it, and a sentence on how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from dcmerge.evaluation import Evaluation
from dcmerge.plots.drawn import as_csv, file_name, summary
from dcmerge.plots.style import readable
from dcmerge.studies.glossary import explained
from dcmerge.ui.text import plain

_BUTTONS = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}


def show(figure: go.Figure, reading: str, *, key: str, terms: Sequence[str] = (), **arguments: Any) -> Any:
    """Draw a figure in the app's theme under its title (which wraps, unlike a figure's own), and below it how to read it.

    Its text for those who cannot see it is the title and the main values. The values can be taken along as CSV, the picture as
    SVG. The title's tooltip explains ``terms``, names of the glossary.

    The figure loses its own title: copying it first would cost as much as making it.
    """
    layout: Any = figure.layout  # plotly makes its attributes at run time
    title = layout.title.text
    # The title may hold names from files.
    st.markdown(f"**{plain(title)}**", help=explained(*terms) if terms else None)
    readable(figure).update_layout(title=None, margin_t=max(30, (layout.margin.t or 60) - 30))
    name = file_name(title)
    config = {**_BUTTONS, "toImageButtonOptions": {"format": "svg", "filename": name}}
    chart = st.plotly_chart(figure, key=key, config=config, alt=f"{title}. {summary(figure)}".strip(), **arguments)
    with st.container(horizontal=True, wrap=False):
        st.caption(f"**How to read:** {reading}", width="stretch")
        _values(figure, name, key)
    return chart


def _values(figure: go.Figure, name: str, key: str) -> None:
    """The chart's values as a table to take along; made when it is asked for."""
    st.download_button(
        "Values",
        data=lambda: as_csv(figure),
        file_name=f"{name}.csv",
        key=f"{key}.csv",
        mime="text/csv",
        type="tertiary",
        icon=":material/download:",
        on_click="ignore",
        width="content",
        help="The values of this chart as a CSV table. The camera above the chart saves the picture as SVG.",
    )


def splits_caption(measured: Evaluation) -> None:
    """By which rules the images were split into validation and test, where that is known."""
    if measured.split_rules:
        st.caption(f"**Splits:** {plain('; '.join(measured.split_lines))}.")
