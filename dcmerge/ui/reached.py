"""The home page's number and picture: how far a merge of the chosen set gets from the base to the experts."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from dcmerge import plots
from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Evaluation
from dcmerge.runs import EVALUATION, Run, RunStore
from dcmerge.studies.glossary import term
from dcmerge.studies.measuring import TITLES
from dcmerge.studies.run_names import title_of
from dcmerge.ui.charts import show
from dcmerge.ui.history import set_of, told
from dcmerge.ui.shell import Page
from dcmerge.ui.text import hundredfold, plain
from dcmerge.zoo.results import demo_results

_DEMO, _SHOWN = "demo", ("average", "dc_merge")


@dataclass(frozen=True)
class Reached:
    """``title`` of the merge that counts, its mean normalised accuracy, and (mean, low, high) of every model by its title."""

    title: str
    normalised: float
    measured_on: str
    models: dict[str, tuple[float, float, float]]
    whose: str


def reached_card(page: Page) -> None:
    """One number and one picture of the last merge that was evaluated on test; a word on how to get there where there is none."""
    if page.models.bench is None:
        return
    found = _evaluated(page) or (_of_demo() if page.models.name == _DEMO else None)
    with st.container(border=True):
        if found is None:
            st.markdown("No merge of this set was evaluated on test images yet. **Evaluate on test** on the Merge page does it.")
            st.page_link("pages/3_Merge.py", label="Merge", icon=":material/merge:")
            return
        st.metric(
            f"{plain(found.title)}: of what the experts reach",
            f"{hundredfold(found.normalised):.1f} %",
            help=term("normalised accuracy"),
        )
        reading = (
            "the first bar is the base without fine-tuning, the last one the experts, each on its own task. The closer a merge "
            f"comes to the last bar, the less it loses. {found.whose}"
        )
        show(plots.reached_bars(found.models, found.measured_on), reading, key="home.reached", terms=("accuracy", "interval"))


def _evaluated(page: Page) -> Reached | None:
    """The newest merge of the set that was looked at on test, with base and experts on the same images."""
    runs = told(RunStore().find, default=[], kind=EVALUATION, set=set_of(page).hash, split="test")
    for run in (run for run in runs if run.method not in TITLES):
        base, experts = (_reference(runs, run, name) for name in (ZERO_SHOT, EXPERTS))
        if base and experts and run.evaluation.mean_normalised is not None:
            steps = {"Base": base, title_of(run): run.evaluation, "Experts": experts}
            models = {title: _mean(measured) for title, measured in steps.items()}
            whose = "This is the newest evaluation of this set."
            return Reached(title_of(run), run.evaluation.mean_normalised, run.evaluation.measured_on, models, whose)
    return None


def _reference(runs: list[Run], like: Run, name: str) -> Evaluation | None:
    return next((run.evaluation for run in runs if run.method == name and run.images == like.images), None)


def _mean(measured: Evaluation) -> tuple[float, float, float]:
    return (measured.mean, *measured.mean_interval)


def _of_demo() -> Reached | None:
    """The numbers that come with the demo, until somebody measures."""
    results = demo_results()
    names = (ZERO_SHOT, *_SHOWN, EXPERTS)
    if results is None or not all(name in results.rows for name in names):
        return None
    titles = {ZERO_SHOT: "Base", EXPERTS: "Experts"}
    models = {titles.get(n, results.rows[n].title): (results.rows[n].accuracy, *results.rows[n].interval) for n in names}
    merge = results.rows[_SHOWN[-1]]
    if merge.normalised is None:
        return None
    whose = "These numbers come with the demo: every method at its defaults, α chosen on validation images."
    return Reached(merge.title, merge.normalised, results.measured_on, models, whose)
