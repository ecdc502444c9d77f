"""What a sweep has found, from its first point on: the curve, why it is so, maps, the front, and the way to the Merge page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from dcmerge import jobs
from dcmerge.evaluation.objectives import ACCURACIES
from dcmerge.reports import report_of_job
from dcmerge.studies.glossary import explained, term
from dcmerge.studies.sweep import Found, Point, described
from dcmerge.studies.sweep.tables import as_csv, rows
from dcmerge.ui import tuning
from dcmerge.ui.job_buttons import Followed
from dcmerge.ui.reporting import report_button
from dcmerge.ui.shell import Page
from dcmerge.ui.text import percent, plain
from dcmerge.ui.tune_charts import all_card, curve_card, map_card, numeric_axes
from dcmerge.ui.view import newest

#: Set by the button that leads to the Merge page.
_GO = "tune.go"


def results_cards(page: Page) -> None:
    """The chosen sweep; a hint where there is none."""
    if page.models.bench is None:
        return
    if st.session_state.pop(_GO, False):
        st.switch_page("pages/3_Merge.py")
    known = tuning.listed(page.models)
    if not known:
        st.info(
            "There is no sweep on this set yet. Start one above: its curve grows here as points come.",
            icon=":material/info:",
        )
        return
    id = newest("Sweep", known, key=tuning.SHOWN, help=f"{term('sweep')} Newest first.")
    Followed("sweep", "points", "tune", tuning.REFUSED, lambda job: _cards(page, job), _must_redraw).show(id)


def _must_redraw() -> bool:
    """A click in a running sweep changed what lies outside of its cards, or leads to another page."""
    return st.session_state.pop(tuning.REDRAW, False) or _GO in st.session_state


def _cards(page: Page, job: jobs.Job) -> None:
    found = tuning.found_of(job)
    if found is None or not found.points:
        st.info("The first point appears when the base and the experts are measured.", icon=":material/hourglass_empty:")
        return
    if found.errors:
        failed = " ".join(f"Point {number}: {reason}." for number, reason in found.errors.items())
        st.warning(f"Some points could not be merged. {plain(failed)}", icon=":material/info:")
    point = _selected(found)
    _outcome_card(page, found, point)
    axes = numeric_axes(found)
    if axes:
        curve_card(page, found, point, axes)
    map_card(page, found, axes)
    all_card(page, found, point)
    _table_card(found, job)


def _selected(found: Found) -> tuple[Point, float]:
    """The point that is looked at, and its α: what was clicked, else the best so far."""
    number, scale = st.session_state.get(tuning.POINT) or (None, None)
    point = next((one for one in found.points if one.number == number), None)
    if point is not None and scale in {arm.scale for arm in point.arms}:
        return point, scale
    point = found.best or found.points[-1]
    return point, point.scale


def _outcome_card(page: Page, found: Found, selected: tuple[Point, float]) -> None:
    """The best point in figures, what it is worth on other images and on test, and the way to the Merge page."""
    best, honest, objective = found.best, found.honest_estimate, found.plan.accuracies[0]
    with st.container(border=True):
        st.subheader("The best so far" if found.remaining else "The best", help=explained("normalised accuracy", "interval"))
        if best is None:
            st.caption("No point has seen all images yet.")
            return
        with st.container(horizontal=True):
            own = found.estimate(best)
            st.metric("Best point", described(best), border=True, height="stretch", help=plain(found.origin))
            st.metric(
                ACCURACIES[objective].capitalize(), _with_interval(own), border=True, height="stretch", help=term("interval")
            )
            if honest is not None:
                st.metric(
                    "On images that did not choose",
                    _with_interval(honest),
                    border=True,
                    height="stretch",
                    help=term("honest interval"),
                )
            if tests := _tests(found):
                st.metric("Normalised on test", tests, border=True, height="stretch", help=term("test split"))
        st.caption(f"{plain(found.tried[0].upper() + found.tried[1:])}: {plain(found.plan.text)}.")
        point, scale = selected
        with st.container(horizontal=True, vertical_alignment="center"):
            label = "Take the best to Merge" if point is best else f"Take point {point.number} to Merge"
            st.button(
                label,
                icon=":material/merge:",
                type="primary",
                on_click=_take_to_merge,
                args=(found, point, scale),
                help="Sets method, parameters and α there.",
            )
            which = "the best" if point is best else f"point {point.number}"
            st.caption(
                f"Selected: {which}, {plain(described(replace_scale(point, scale)))}. Click a point in a chart to select it."
            )


def _take_to_merge(found: Found, point: Point, scale: float) -> None:
    tuning.take(found, point, scale)
    st.session_state[_GO] = True


def replace_scale(point: Point, scale: float) -> Point:
    """The point with another of its α in front."""
    arms = sorted(point.arms, key=lambda arm: arm.scale != scale)
    return replace(point, arms=tuple(arms))


def _with_interval(one: Any) -> str:
    return f"{percent(one.value)} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def _tests(found: Found) -> str:
    """The mean normalised accuracy of the last look at test."""
    from dcmerge.runtime.plain import from_plain
    from dcmerge.studies.measuring import Row

    return percent(from_plain(Row, found.tests[-1]["row"]).measured.mean_normalised) if found.tests else ""


def _table_card(found: Found, job: jobs.Job) -> None:
    with st.container(border=True):
        st.markdown(f"**All points ({len(found.points)}), the best first**")
        st.dataframe(
            rows(found),
            hide_index=True,
            placeholder="–",
            alt="Every point of the sweep",
            height=min(400, 38 + 35 * len(found.points)),
        )
        st.caption(
            "**How to read:** accuracies are normalised, in percent. A point that stopped early saw fewer images. The worst task "
            "is the one whose share of its expert's accuracy is the smallest."
        )
        with st.container(horizontal=True):
            st.download_button(
                "CSV",
                data=as_csv(found),
                file_name="sweep.csv",
                mime="text/csv",
                on_click="ignore",
                icon=":material/download:",
                width="content",
                help="All points and columns.",
            )
            report_button(lambda: report_of_job(job), f"sweep-{job.id}", "tune.report")
