"""What a comparison found, from the first finished row on: progress, table, figures, export."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dcmerge.errors import WARNING
from dcmerge.methods import NEEDS, methods
from dcmerge.reports import report_of
from dcmerge.studies import exports
from dcmerge.studies.comparison import Comparison
from dcmerge.studies.glossary import explained
from dcmerge.ui import comparing
from dcmerge.ui.compare_figures import figures
from dcmerge.ui.compare_setup import SHOWN
from dcmerge.ui.compare_table import table
from dcmerge.ui.notes import show_notes
from dcmerge.ui.reporting import report_button
from dcmerge.ui.shell import Page
from dcmerge.ui.text import plain
from dcmerge.ui.view import newest, remembered


def results_cards(page: Page) -> None:
    """The chosen comparison; a hint where there is none."""
    if page.models.bench is None:
        return
    known = comparing.listed(page.models)
    if not known:
        st.info("There is no comparison on this set yet. Choose methods above and start one.", icon=":material/info:")
        return
    with st.container(border=True):
        st.subheader("Results", help=explained("accuracy", "normalised accuracy", "zero-shot"))
        chosen = newest("Comparison", known, key=SHOWN)
        shown = comparing.find(chosen)
        if shown is None:
            st.info("This comparison has been removed.", icon=":material/info:")
            return
        _state(shown)
        found = _filtered(shown.comparison)
        if found is None:
            return
        show_notes(found.notes)
        show_notes(f"{note} ({row.title})" for row in found.rows for note in row.notes if note.startswith(WARNING))
        table(page, found)
        _export(page, found, shown.id)
    figures(page, found)


def _state(shown: comparing.Shown) -> None:
    """Progress while it runs, and what can be done about one that stopped."""
    if shown.is_running:
        _watched(shown.id, _rows(shown))
    elif shown.can_resume:
        reason = f": {plain(shown.error)}" if shown.error else ""
        words = "has rows that failed" if shown.state == "done" else f"is {shown.state}{reason}"
        st.warning(f"This comparison {words}. Finished rows are kept.", icon=":material/info:")
        st.button(
            "Resume",
            icon=":material/play_arrow:",
            on_click=comparing.resume,
            args=(shown.id,),
            help="Continues with the methods that have no row yet.",
        )


def _rows(shown: comparing.Shown) -> int:
    return len(shown.comparison.rows) if shown.comparison else 0


@st.fragment(run_every=1.0)
def _watched(id: str, rows: int) -> None:
    """The progress bar; redraws the page when a row is ready or the work has ended."""
    shown = comparing.find(id)
    if shown is None or not shown.is_running or _rows(shown) != rows:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(min(1.0, shown.share), text=plain(shown.text))
        st.button(
            "Cancel", key="compare.cancel", icon=":material/cancel:", on_click=comparing.cancel, args=(id,), width="content"
        )


def _filtered(found: Comparison | None) -> Comparison | None:
    """The rows whose methods need only what the user allows; None while there is no row with figures."""
    if found is None or not any(row.evaluation for row in found.rows):
        st.info("The first rows appear when the base and the experts are measured.", icon=":material/hourglass_empty:")
        return None
    needs = {row.name: set(methods()[row.slug].needs) for row in found.rows if row.slug in methods()}
    other = sorted(set().union(*needs.values()) - {"weights"})
    if not other:
        return found
    allowed = remembered(
        st.multiselect,
        "Data needed besides the experts' weights",
        key="allowed",
        default=other,
        options=other,
        format_func=NEEDS.get,
        help="Hides the methods that need anything else.",
    )
    rows = [row for row in found.rows if needs.get(row.name, set()) <= {"weights", *allowed}]
    return replace(found, rows=tuple(rows))


def _export(page: Page, found: Comparison, id: str) -> None:
    with st.container(horizontal=True):
        st.download_button(
            "CSV",
            data=exports.as_csv(found),
            file_name="comparison.csv",
            mime="text/csv",
            on_click="ignore",
            icon=":material/download:",
            help="All rows and columns.",
        )
        st.download_button(
            "Markdown",
            data=exports.as_markdown(found),
            file_name="comparison.md",
            mime="text/markdown",
            on_click="ignore",
            icon=":material/download:",
            help="A table to paste into a report.",
        )
        report_button(lambda: report_of([id], page.models.task_titles), f"comparison-{id}", "compare.report")
