"""Charts of a sweep: the curve and why it is so, a map of two parameters, the front, what all points share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from dcmerge import plots
from dcmerge.evaluation.objectives import ACCURACIES, MEAN
from dcmerge.methods.dc_merge import smoothing_in_use
from dcmerge.plots import sweeps
from dcmerge.studies.glossary import term
from dcmerge.studies.inspection import layer_spectra
from dcmerge.studies.sweep import SCALE, Found, Point
from dcmerge.ui import tuning
from dcmerge.ui.charts import show
from dcmerge.ui.shell import Page
from dcmerge.ui.view import remembered

_CURVE, _MAP, _FRONT = "tune.curve", "tune.map", "tune.front"


def numeric_axes(found: Found) -> list[str]:
    """The axes that have a scale, α last."""
    values = {one.name: [p.values[one.name] for p in found.points if one.name in p.values] for one in found.plan.axes}
    return sorted((name for name, own in values.items() if own and all(map(_is_number, own))), key=lambda name: name == SCALE)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _pick(found: Found, key: str) -> None:
    """For a chart's callback: look at the clicked point, and set the controls of all pages to it."""
    chosen = st.session_state[key].selection.points
    custom = (chosen[0].get("customdata") if chosen else None) or [None]
    point = next((one for one in found.points if one.number == custom[0]), None)
    if point is None:
        return
    tuning.take(found, point, custom[1] if key == _MAP else None)
    st.session_state[tuning.REDRAW] = True  # the sidebar lies outside of a running sweep's fragment


def curve_card(page: Page, found: Found, selected: tuple[Point, float], axes: list[str]) -> None:
    labels, point = tuning.axis_labels(found.plan.slug, page), selected[0]
    titles = page.models.task_titles
    with st.container(border=True):
        left, right = st.columns([3, 2]) if found.plan.slug == "dc_merge" else (st.container(), None)
        with left:
            axis = axes[0]
            if len(axes) > 1:
                axis = remembered(st.selectbox, "Along", key="tune.along", default=axes[0], options=axes, format_func=labels.get)
            what = remembered(
                st.selectbox,
                "Accuracy of",
                key="tune.what",
                default=MEAN,
                options=[*ACCURACIES, *found.experts],
                format_func=lambda one: ACCURACIES.get(one, titles.get(one, one)),
                help=term("normalised accuracy"),
            )
            name = ACCURACIES.get(what) or f"normalised accuracy of {titles.get(what, what)}"
            title = f"{name[0].upper()}{name[1:]} against {labels[axis]} ({found.images} validation images a task)"
            show(
                sweeps.curve(found, axis, labels[axis], what, title, point.number),
                "each dot is a merge at its own best α, the whiskers are 95 % intervals. Dashed lines are points to which this "
                "parameter does not matter. Where whiskers overlap widely, these images show no difference. Hollow dots were "
                "surely beaten and stopped early. **Click a dot** to set all pages to it; the large one is selected.",
                key=_CURVE,
                terms=("normalised accuracy", "interval", "α"),
                on_select=lambda: _pick(found, _CURVE),
                selection_mode="points",
            )
        if right is not None:
            with right:
                _spectrum(page, found, point)
        with st.expander("Every task"):
            show(
                sweeps.task_curves(found, axis, labels[axis], titles),
                "the same merges, one small plot a task. A mean that hardly moves may hide tasks that move against each other.",
                key="tune.tasks",
                terms=("normalised accuracy",),
            )


def _spectrum(page: Page, found: Found, point: Point) -> None:
    """What the selected point does to the spectrum of the matrix that is chosen in the sidebar."""
    titles = page.models.task_titles
    worst = found.yardstick.worst_task(point.hits)
    task = remembered(
        st.selectbox,
        "Task",
        key="tune.task",
        default=worst if worst in titles else next(iter(titles)),
        options=list(titles),
        format_func=titles.get,
        help="It begins with the worst task of the selected point. The matrix is chosen in the sidebar.",
    )
    parameters = dict(point.parameters)
    spectra = layer_spectra(page.layer, **parameters)
    own = replace(spectra, tasks=tuple(one for one in spectra.tasks if one.task == task))
    strategy = smoothing_in_use(parameters["smoothing"], page.models.vectors.kind)
    ratio = f", ρ = {parameters['rho']:g}" if strategy == "linear" else ""
    figure = plots.spectrum_facets(own, titles, whole=False, columns=1)
    figure.update_layout(height=430, title=f"Why: the spectrum of {titles[task]} in one matrix, smoothing {strategy}{ratio}")
    show(
        figure,
        "grey is the task vector as trained, blue what the smoothing of the selected point makes of it, amber what is left "
        "of it in the merge.",
        key="tune.spectrum",
        terms=("spectrum", "smoothing"),
    )


def map_card(page: Page, found: Found, axes: list[str]) -> None:
    """Two parameters at once; α is always there, because every point was looked at with several."""
    places = [*[name for name in axes if name != SCALE], SCALE]
    if len(places) < 2 or (SCALE not in axes and max(len(point.arms) for point in found.points) < 2):
        return
    labels = tuning.axis_labels(found.plan.slug, page)
    with st.container(border=True):
        x, y = places[0], places[-1]
        if len(places) > 2:
            left, right = st.columns(2)
            with left:
                x = remembered(st.selectbox, "Across", key="tune.x", default=x, options=places, format_func=labels.get)
            with right:
                others = [name for name in places if name != x]
                y = remembered(st.selectbox, "Upwards", key="tune.y", default=others[-1], options=others, format_func=labels.get)
        picked = st.session_state.get(tuning.POINT)
        show(
            sweeps.parameter_map(found, x, y, labels, picked),
            "each square was measured; the lighter, the better. Squares with fewer images are less sure. A light ridge along one "
            "axis says that this parameter hardly matters. **Click a square** to set all pages to it.",
            key=_MAP,
            terms=("normalised accuracy", "α"),
            on_select=lambda: _pick(found, _MAP),
            selection_mode="points",
        )


def all_card(page: Page, found: Found, selected: tuple[Point, float]) -> None:
    """The front of mean and worst task; parallel coordinates and importances where there is something to compare."""
    from dcmerge.plots import studies  # Optuna's figures

    labels = tuning.axis_labels(found.plan.slug, page)
    if len(found.whole) < 2:
        return
    left, right = st.columns(2)
    with left, st.container(border=True):
        show(
            sweeps.mean_against_worst(found, selected[0].number),
            "right is a better mean, up is a better worst task. No other point beats those on the dotted line in both. If "
            "the line is steep, a little of the mean buys much for the worst task.",
            key=_FRONT,
            terms=("front", "worst task"),
            on_select=lambda: _pick(found, _FRONT),
            selection_mode="points",
        )
    with right, st.container(border=True):
        show(
            studies.parallel_coordinates(found, labels),
            "each line is a point. Drag along an axis to keep the lines that cross there. Light lines that run together show the "
            "values that good points share.",
            key="tune.parallel",
            terms=("normalised accuracy",),
        )
    if importances := studies.importance_values(found):
        with st.container(border=True):
            show(
                studies.importance_bars(importances, labels),
                "the longer the bar, the more the good points differ from the others in this parameter. With few points the bars "
                "are rough.",
                key="tune.importance",
                terms=("importance",),
            )
