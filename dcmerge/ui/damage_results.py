"""A damage map from its first part on: the squares, what adds up, what a repair costs, and the way to the matrix itself."""

from __future__ import annotations

import streamlit as st

from dcmerge import jobs
from dcmerge.plots import damages
from dcmerge.reports import report_of_job
from dcmerge.studies.damage import CHANGES, EXPERT, DamageMap
from dcmerge.studies.damage.tables import as_csv, label_of
from dcmerge.studies.glossary import explained
from dcmerge.ui import damaging
from dcmerge.ui.charts import show
from dcmerge.ui.damage_setup import CHANGE_TITLES
from dcmerge.ui.job_buttons import Followed
from dcmerge.ui.reporting import report_button
from dcmerge.ui.shell import LAYER, Page
from dcmerge.ui.text import plain
from dcmerge.ui.view import choose_for_next_page, newest, remembered

_MAP = "damage.map"
#: The part that was clicked.
_PART = "damage.part"


def results_cards(page: Page) -> None:
    """The chosen map; a hint where there is none."""
    if page.models.bench is None:
        return
    known = damaging.listed(page.models)
    if not known:
        st.info("There is no damage map of this set yet. Make one above: it grows here part by part.", icon=":material/info:")
        return
    id = newest("Map", known, key=damaging.SHOWN)
    Followed("map", "looks", "damage", damaging.REFUSED, lambda job: _cards(page, job)).show(id)


def _cards(page: Page, job: jobs.Job) -> None:
    found = damaging.found_of(job)
    if found is None or not found.units:
        st.info("The first part appears when the base and the experts are measured.", icon=":material/hourglass_empty:")
        return
    change, images = _controls(found)
    _map_card(page, found, change, images)
    left, right = st.columns(2)
    with left, st.container(border=True):
        show(
            damages.sums_figure(found, change, page.models.task_titles, images),
            "where the sum is larger than all at once, the parts do the same work and repair each other. Where it is smaller, "
            "they hurt only together. All parts at once are the task's own expert, or the base.",
            key="damage.sums",
            terms=("interval",),
        )
    if found.repaired:
        with right, st.container(border=True):
            show(
                damages.repair_figure(found),
                "each dot repairs so many of the best parts with every task's own expert, which must then be kept beside the "
                "merged model. The parts are chosen on the first half of the images and measured on the second.",
                key="damage.repair",
            )
    with st.container(horizontal=True):
        name = f"damage-{job.id}"
        st.download_button("Cells as CSV", as_csv(found, images), f"{name}.csv", "text/csv", icon=":material/download:")
        report_button(lambda: report_of_job(job, page.models.task_titles), name, "damage.report")


def _controls(found: DamageMap) -> tuple[str, int]:
    """The change that is shown, and the number of images: fewer show what a smaller look would have said."""
    left, right = st.columns(2)
    with left:
        change = remembered(
            st.selectbox,
            "Show each part",
            key="damage.change",
            default=next(iter(found.changed)),
            options=list(found.changed),
            format_func=CHANGE_TITLES.get,
            help="; ".join(f"{CHANGE_TITLES[name]}: {CHANGES[name]}" for name in found.changed),
        )
    with right:
        most = found.images
        images = most
        if most > 10:
            images = remembered(
                st.slider,
                "Images a task that count",
                key="damage.images",
                default=most,
                min_value=5,
                max_value=most,
                step=1,
                help="Fewer images show how much of the map is noise: what is real stays when the number grows.",
            )
    return change, images


def _map_card(page: Page, found: DamageMap, change: str, images: int) -> None:
    with st.container(border=True):
        direction = "Blue: the merge lost this there." if change == EXPERT else "Red: the merge owes its accuracy to it there."
        show(
            damages.map_figure(found, change, page.models.task_titles, images, st.session_state.get(_PART, "")),
            f"each square is one part, {CHANGES[change]}. {direction} Faint squares lie within the noise: their 95 % interval "
            "holds 0. The last column is the mean over all tasks. **Click a square** to choose its matrix for the Spectra and "
            "Alignment pages.",
            key=_MAP,
            terms=("damage map", "interval", "validation split"),
            on_select=_pick,
            selection_mode="points",
        )
        part = st.session_state.get(_PART)
        if part in page.models.vectors.parameters:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"**{plain(label_of(part))}**", help=explained("spectrum", "DirSim"))
                st.page_link("pages/1_Spectra.py", label="See its spectrum", icon=":material/equalizer:")
                st.page_link("pages/2_Alignment.py", label="See its alignment", icon=":material/grid_on:")


def _pick() -> None:
    """For the chart's callback: the clicked part becomes the matrix of the other pages."""
    points = st.session_state[_MAP].selection.points
    if points:
        part = points[0]["customdata"][0]
        st.session_state[_PART] = part
        choose_for_next_page(LAYER, part)
