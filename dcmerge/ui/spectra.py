"""Cards of the Spectra page."""

from __future__ import annotations

import streamlit as st

from dcmerge import plots
from dcmerge.studies.glossary import explained, term
from dcmerge.studies.inspection import Concentration, LayerSpectra, concentrations, layer_spectra
from dcmerge.ui.background import BACKGROUND, Filling
from dcmerge.ui.charts import show
from dcmerge.ui.growing import growing, redraw_page
from dcmerge.ui.shell import LAYER, Page
from dcmerge.ui.text import percent, plain
from dcmerge.ui.view import choose, remembered
from dcmerge.vectors.naming import place_of

_PICKER = "spectra.picker"
_COMPUTING = "Computing singular values"
_PARTS = ("kept", "all")
_POWERS = {"sum of s² (usual)": 2, "sum of s (DC-Merge's smoothing)": 1}


def _concentration(page: Page) -> Filling[Concentration]:
    return BACKGROUND.filling((page.models.key, "concentration"), lambda: concentrations(page.models.vectors))


def _spectra(page: Page) -> LayerSpectra:
    return _spectra_once(page.models.key, page.layer_name, tuple(page.smoothing.items()), page)


@st.cache_resource(max_entries=64, show_spinner=False)
def _spectra_once(name: str, layer: str, smoothing: tuple[tuple[str, object], ...], _page: Page) -> LayerSpectra:
    with BACKGROUND.first():
        return layer_spectra(_page.layer, **dict(smoothing))


def _take_pick() -> None:
    points = st.session_state[_PICKER].selection.points
    if points:
        choose(LAYER, points[0]["customdata"])
        redraw_page()


def overview_card(page: Page) -> None:
    """Pick a matrix from a grid of depth x kind."""

    def draw(found: Concentration) -> None:
        reading = (
            "each square is a matrix. The lighter it is, the more of its energy sits in the top 5 % of its singular values "
            "(mean over tasks). **Click a square** to see that matrix above, or choose it under Matrix in the sidebar. The "
            "ringed one is shown now."
        )
        terms = ("energy in the top 5 %", "energy (sum of s²)")
        figure = plots.layer_overview(found, page.layer_name)
        show(figure, reading, key=_PICKER, terms=terms, on_select=_take_pick, selection_mode="points")

    with st.container(border=True):
        growing([_concentration(page)], draw, _COMPUTING)


def spectrum_card(page: Page) -> None:
    """Raw, smoothed and aligned spectra of every task."""
    spectra = _spectra(page)
    with st.container(border=True):
        st.subheader(plain(place_of(page.layer_name).label), help=explained("spectrum", "singular value", "delta"))
        if spectra.rank == 0:
            st.info(
                "This matrix is too small to give every task a component. Spectral methods average it.", icon=":material/info:"
            )
        parts = remembered(
            st.segmented_control,
            "Components",
            key="components",
            default=_PARTS[0],
            options=list(_PARTS),
            help=f"{term('kept components')} Smoothing changes only these.",
            required=True,
        )
        show(
            plots.spectrum_facets(spectra, page.models.task_titles, whole=parts == _PARTS[1]),
            "grey is the task vector as trained, and the vertical dotted line is where the kept components end. Blue is what "
            "smoothing makes of them. Amber is what is left in the cover basis after small entries and the block mask. Where "
            "blue is flatter than grey, weak directions gain weight; where amber falls below blue, they are lost again.",
            key="spectra.facets",
            terms=("smoothing", "kept components", "aligned delta"),
        )


def cumulative_card(page: Page) -> None:
    """Cumulative energy of the kept components."""
    with st.container(border=True):
        unit = remembered(
            st.segmented_control,
            "Energy is the",
            key="energy",
            default=next(iter(_POWERS)),
            options=list(_POWERS),
            help=explained("energy (sum of s²)", "energy (sum of s)"),
            required=True,
        )
        show(
            plots.cumulative_lines(_spectra(page), page.models.task_titles, _POWERS[unit]),
            "the faster a line rises, the fewer directions carry the task. Dotted lines are as trained, solid ones smoothed. A "
            "straight diagonal means that all kept directions weigh the same.",
            key="spectra.cumulative",
            terms=("energy", "component"),
        )


def figures_card(page: Page) -> None:
    """Key figures of every task's spectrum."""
    spectra = _spectra(page)
    titles = page.models.task_titles
    rows = [
        {
            "task": titles[task.task],
            "effective rank": task.figures.effective_rank,
            "stable rank": task.figures.stable_rank,
            "top 5 % hold": percent(task.figures.top_share),
            "largest": task.figures.largest,
            "smoothed effective rank": task.smoothed_figures.effective_rank,
        }
        for task in spectra.tasks
    ]
    number = st.column_config.NumberColumn
    with st.container(border=True):
        st.markdown(
            f"**Key figures of every spectrum** ({spectra.tasks[0].figures.components} components, {spectra.rank} kept for each "
            "task)",
            help=explained("component", "kept components"),
        )
        st.dataframe(
            rows,
            hide_index=True,
            alt="Key figures of each task's spectrum",
            column_config={
                "effective rank": number(format="%.1f", help=term("effective rank")),
                "stable rank": number(format="%.1f", help=term("stable rank")),
                "top 5 % hold": st.column_config.TextColumn(help=term("energy in the top 5 %")),
                "largest": number(format="%.3f", help=f"The largest singular value, s₁. {term('singular value')}"),
                "smoothed effective rank": number(
                    format="%.1f", help=f"Of the kept values after smoothing. {term('effective rank')}"
                ),
            },
        )
        st.caption(
            "**How to read:** the further the effective rank lies below the number of components, the more smoothing can "
            "change it."
        )


def concentration_card(page: Page) -> None:
    """Energy concentration over all layers and tasks."""

    def draw(found: Concentration) -> None:
        show(
            plots.concentration_map(found, page.models.task_titles),
            "a light cell is a matrix whose change is carried by few directions. A row that is light throughout belongs to a "
            "task whose weak directions are easily lost in the sum, or whose strong ones cover those of other tasks.",
            key="spectra.concentration",
            terms=("energy in the top 5 %", "energy (sum of s²)"),
        )

    with st.container(border=True):
        growing([_concentration(page)], draw, _COMPUTING)
