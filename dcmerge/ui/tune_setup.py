"""What a sweep varies and on how many images, with one button that starts it and says before how long it takes."""

from __future__ import annotations

import os
from typing import Any

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.methods import Method, fitting_methods
from dcmerge.methods.declare import Number
from dcmerge.studies.glossary import explained, term
from dcmerge.studies.sweep import GRID, OBJECTIVES, SAMPLERS, SCALE, TRIALS, Plan
from dcmerge.studies.sweep.axes import ALPHA, idle_parameters
from dcmerge.studies.sweep.forecast import predicted_seconds
from dcmerge.studies.sweep.mixing import FACTOR, is_mix, without
from dcmerge.ui import tuning
from dcmerge.ui.controls import method_controls
from dcmerge.ui.job_buttons import start_row
from dcmerge.ui.mixing import mixer_card
from dcmerge.ui.shell import Page
from dcmerge.ui.single_jobs import ahead_text
from dcmerge.ui.text import duration
from dcmerge.ui.view import remembered

_LIMITS = {25: "25", 50: "50", 100: "100", 0: "all"}
_SAMPLERS = {"grid": "grid", "random": "at random", "tpe": "TPE, which learns"}
#: The goals that are offered, as objectives.
_GOALS = {
    "mean": "the mean",
    "worst": "the worst task",
    "mean,worst": "both, as a front",
    "mean,cost": "the mean and seconds, as a front",
}
_VALUES, _MOST_WORKERS = 8, 8


def setup_card(page: Page) -> None:
    """Choose and start; what runs is shown by the cards below."""
    if page.models.bench is None:
        st.info("This set has no images, so no accuracy can be tuned. Open one with images.", icon=":material/info:")
        return
    known, _ = fitting_methods(page.models.vectors, page.models.bench)
    with st.container(border=True):
        left, middle, right = st.columns([2, 3, 2], vertical_alignment="bottom")
        with left:
            slug = remembered(
                st.selectbox,
                "Method",
                key="method",
                default="dc_merge" if "dc_merge" in known else next(iter(known)),
                options=list(known),
                format_func=lambda one: known[one].label,
                help="The same choice as on the Merge page.",
            )
        chosen = known[slug]
        with middle:
            names = _varied(page, chosen)
        with right:
            limit = remembered(
                st.selectbox,
                "Validation images a task",
                key="tune.limit",
                default=50,
                options=list(_LIMITS),
                format_func=_LIMITS.get,
                help=f"More images make the intervals narrower and take longer. {term('validation split')}",
            )
        settings, workers = _further(page, chosen)
        page = mixer_card(page)
        _start(page, chosen, names, limit or None, settings, workers)


def _varied(page: Page, chosen: Method) -> list[str]:
    """The names of what is varied. DC-Merge begins with its smoothing and ρ, others with their first number."""
    numbers = [name for name, one in chosen.parameters.items() if isinstance(one.constraint, Number) and name != "seed"]
    usual = ["smoothing", "rho"] if chosen.slug == "dc_merge" else numbers[:1] or [SCALE]
    labels = tuning.axis_labels(chosen.slug, page)
    return remembered(
        st.multiselect,
        "Vary",
        key=f"{chosen.slug}.tune.over",
        default=usual,
        options=[name for name in labels if name != SCALE or not chosen.fixed_scale],
        format_func=lambda name: labels[name],
        help="Ranges and scales are the parameters' own. Without α each point gets its own best α, which costs no merge.",
    )


def _further(page: Page, chosen: Method) -> tuple[dict[str, Any], int]:
    """Settings that a first sweep does not need, and the number of processes."""
    with st.expander("Search and other parameters"):
        columns = st.columns(5)
        with columns[0]:
            sampler = remembered(
                st.selectbox,
                "Search",
                key="tune.sampler",
                default=GRID,
                options=list(SAMPLERS),
                format_func=_SAMPLERS.get,
                help=explained("grid search", "TPE"),
            )
        with columns[1]:
            values = remembered(
                st.number_input,
                "Values of a range" if sampler == GRID else "Points",
                key="tune.values" if sampler == GRID else "tune.trials",
                default=_VALUES if sampler == GRID else TRIALS,
                min_value=2 if sampler == GRID else 1,
                max_value=1000,
                step=1,
                help="In a grid every range gets so many values." if sampler == GRID else "How many points are looked at.",
            )
        with columns[2]:
            goal = remembered(
                st.selectbox,
                "Make large",
                key="tune.goal",
                default="mean",
                options=list(_GOALS),
                format_func=_GOALS.get,
                help=f"{'; '.join(f'{name}: {text}' for name, text in OBJECTIVES.items())}.\n\n{term('front')}",
            )
        with columns[3]:
            cores = os.cpu_count() or 1
            workers = remembered(
                st.number_input,
                "Processes",
                key="tune.workers",
                default=min(2, cores),
                min_value=1,
                max_value=max(_MOST_WORKERS, cores),
                step=1,
                help="Each opens the models for itself and looks at other points.",
            )
        with columns[4]:
            test = remembered(
                st.toggle,
                "Look at test",
                key="tune.test",
                default=True,
                help=f"The best point is measured once on all test images at the end. {term('test split')}",
            )
        st.caption("What is not varied has the values of the Merge page. Smoothing and ρ are in the sidebar.")
        parameters = method_controls(chosen, page.smoothing)
    objectives = tuple(goal.split(","))
    return {"sampler": sampler, "values": values, "objectives": objectives, "test": test, "parameters": parameters}, workers


def _plan(page: Page, chosen: Method, names: list[str], limit: int | None, settings: dict[str, Any]) -> Plan:
    about = dict(settings)
    values, parameters = about.pop("values"), about.pop("parameters")
    is_grid = about["sampler"] == GRID
    over = [_axis(chosen, name, values if is_grid else None) for name in names]
    fixed = {name: value for name, value in parameters.items() if name not in names}
    if "rho" in names and "smoothing" not in names and "rho" in idle_parameters(chosen, chosen.check(fixed)):
        fixed["smoothing"] = "linear"  # who varies ρ wants to see what it does
    trials = 10_000 if is_grid else values
    mix = without(page.models.vectors.mix, set(names)).to_data()
    return Plan.of(chosen.slug, over, parameters=fixed, limit=limit, trials=trials, mix=mix, **about)


def _axis(chosen: Method, name: str, values: int | None) -> str:
    """An axis as the command line writes it; DC-Merge's "auto" is one of the other smoothings."""
    if name == "smoothing" and chosen.slug == "dc_merge":
        return "smoothing=none,average,linear"
    constraint = chosen.parameters[name].constraint if name in chosen.parameters else FACTOR if is_mix(name) else ALPHA
    if values is None or not isinstance(constraint, Number):
        return name
    low, high = constraint.usual_range
    return f"{name}={low!r}:{high!r}:{values}"


def _start(page: Page, chosen: Method, names: list[str], limit: int | None, settings: dict[str, Any], workers: int) -> None:
    try:
        plan = _plan(page, chosen, names, limit, settings) if names else None
        problem = "" if plan else "Choose at least one thing to vary."
    except InputError as error:
        plan, problem = None, str(error)
    how_long = None if plan is None else lambda: _how_long(page, plan, workers)
    start_row("Start sweep", tuning.start, (page.models, plan, workers), how_long=how_long, problem=problem, note=tuning.REFUSED)


def _how_long(page: Page, plan: Plan, workers: int) -> str:
    points, whole = predicted_seconds(plan, page.models.images, *tuning.pace(page.models.key, page.models), workers)
    count = len(plan.cells())
    test = f", and about {duration(whole - points)} more for the look at test" if plan.test else ""
    return f"{count} points take about {duration(points)} on this machine as busy as it is now{test}. {ahead_text()}"
