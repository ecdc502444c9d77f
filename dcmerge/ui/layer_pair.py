"""Two matrices beside each other: every column of both, and their difference, over all tasks and for each."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from dcmerge.studies.layer_table import COLUMNS, LayerTable
from dcmerge.studies.layer_table.found import two_as_csv, two_rows
from dcmerge.ui.shell import Page
from dcmerge.ui.view import remembered
from dcmerge.vectors.naming import place_of


def two_layers_card(page: Page, found: LayerTable, formats: Mapping[str, str]) -> None:
    """``formats``: how a column's values are written, one decimal where it is not named."""
    if len(found.layers) < 2:
        return
    with st.container(border=True):
        st.markdown("**Two matrices beside each other**")
        first, second = _choice(found)
        titles = page.models.task_titles
        written: list[dict[str, str]] = []
        for row in two_rows(found, first, second):
            form = formats.get(row["column"], "%.1f")
            signed = form if "+" in form else form.replace("%.", "%+.")
            written.append(
                {
                    "column": row["column"],
                    "first": _text(form, row["first"]),
                    "second": _text(form, row["second"]),
                    "difference": _text(signed, row["difference"]),
                    **{titles[task]: _text(signed, row["tasks"][task]) for task in found.tasks},
                }
            )
        column = st.column_config.TextColumn
        st.dataframe(
            written,
            hide_index=True,
            alt="Every column of two matrices, their difference, and the difference task by task",
            column_config={
                "column": column("", pinned=True, help="; ".join(f"{name}: {about}" for name, about in COLUMNS.items())),
                "first": column(place_of(first).label, help=f"{first}, mean over the tasks"),
                "second": column(place_of(second).label, help=f"{second}, mean over the tasks"),
                "difference": column("difference", help="The first minus the second, mean over the tasks that both have."),
            },
        )
        st.caption("**How to read:** the first two columns are means over the tasks. On the right the difference for each task.")
        st.download_button(
            "Both as CSV",
            two_as_csv(found, first, second),
            "two-matrices.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
        )


def _choice(found: LayerTable) -> tuple[str, str]:
    """The names of two matrices; at first the first and the last one."""
    names = list(found.layers)
    boxes = ("Matrix", "layers.first", names[0]), ("Minus matrix", "layers.second", names[-1])
    chosen = []
    for place, (label, key, default) in zip(st.columns(2), boxes, strict=True):
        with place:
            chosen.append(
                remembered(
                    st.selectbox,
                    label,
                    key=key,
                    default=default,
                    options=names,
                    format_func=lambda name: f"{place_of(name).label} ({name})",
                )
            )
    return chosen[0], chosen[1]


def _text(form: str, value: float | None) -> str:
    return "–" if value is None else form % value
