"""How every figure is shown: with a text for those who cannot see it, and a sentence on how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from dcmerge.evaluation import Evaluation
from dcmerge.studies.glossary import explained
from dcmerge.ui.text import plain

_CONFIG = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"]}


def show(figure: go.Figure, reading: str, *, key: str, terms: Sequence[str] = (), **arguments: Any) -> Any:
    """Draw a figure in the app's theme under its title (which wraps, unlike a figure's own), and below it how to read it.

    The title's tooltip explains ``terms``, names of the glossary.

    The figure loses its own title: copying it first would cost as much as making it.
    """
    layout: Any = figure.layout  # plotly makes its attributes at run time
    title = layout.title.text
    # The title may hold names from files.
    st.markdown(f"**{plain(title)}**", help=explained(*terms) if terms else None)
    figure.update_layout(title=None, margin_t=max(30, (layout.margin.t or 60) - 30))
    chart = st.plotly_chart(figure, key=key, config=_CONFIG, alt=title, **arguments)
    st.caption(f"**How to read:** {reading}")
    return chart


def splits_caption(measured: Evaluation) -> None:
    """By which rules the images were split into validation and test, where that is known."""
    if measured.split_rules:
        st.caption(f"**Splits:** {plain('; '.join(measured.split_lines))}.")
