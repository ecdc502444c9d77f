"""A button that hands out what a page shows as one HTML file."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dcmerge.reports import Report, as_html


def report_button(make: Callable[[], Report], name: str, key: str) -> None:
    """``make`` is called when the file is asked for. ``name``: of the file, without its ending."""
    st.download_button(
        "Report",
        data=lambda: as_html(make()),
        file_name=f"{name}.html",
        key=key,
        mime="text/html",
        icon=":material/summarize:",
        on_click="ignore",
        width="content",
        help="One HTML file with the figures, the values and how to repeat it. It opens without a server or the net.",
    )
