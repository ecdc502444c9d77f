"""Continual merging on the Merge page: in which order the experts come, and what every step does to every task."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dcmerge import plots
from dcmerge.methods.opcm import arrival
from dcmerge.studies.continual import OPCM, Sequel, steps_of_opcm
from dcmerge.studies.glossary import term
from dcmerge.ui import work
from dcmerge.ui.charts import show
from dcmerge.ui.choice import Choice
from dcmerge.ui.merging import QUICK_SPLIT
from dcmerge.ui.shell import Page
from dcmerge.ui.text import plain

_WORK, _FOUND = "sequel.work", "sequel.found"
_IMAGES = 100


def sequel_card(page: Page, choice: Choice) -> None:
    """For a method that takes the experts one after another; nothing for the others."""
    if page.models.bench is None or choice.method.slug != OPCM or page.models.vectors.mix:
        return  # the steps have their own lengths, which a mix would change
    with st.container(border=True):
        st.subheader("One expert after another", help=term("backward transfer"))
        order = arrival(page.models.vectors.tasks, choice.parameters["seed"])
        titles = page.models.task_titles
        arrivals = plain(" → ".join(titles[task] for task in order))
        st.markdown(f"The experts come in this order: {arrivals}. Change *Order* above to draw another one.")
        st.button(
            "Accuracy after each expert",
            icon=":material/timeline:",
            disabled=work.running(_WORK),
            on_click=_start,
            args=(page, choice),
            help=f"Measures the merged model after every step, on {_IMAGES} validation images of every task.",
        )
        if (done := work.finished(_WORK)) and done.error:
            st.warning(plain(done.error), icon=":material/info:")
        elif done:
            key, sequel = done.result
            st.session_state.setdefault(_FOUND, {})[key] = sequel
            st.rerun()
        work.watch(_WORK)
        if found := st.session_state.get(_FOUND, {}).get(choice.key(page)):
            _figure(found, titles)


def _start(page: Page, choice: Choice) -> None:
    def measure(progress: work.Progress, cancelled: Callable[[], bool]) -> tuple[tuple, Sequel]:
        found = steps_of_opcm(
            page.models.images, dict(choice.parameters), split=QUICK_SPLIT, limit=_IMAGES, progress=progress, cancelled=cancelled
        )
        return choice.key(page), found

    work.start(_WORK, "Merging expert by expert", measure)


def _figure(found: Sequel, titles: dict[str, str]) -> None:
    show(
        plots.sequel_lines(found, titles),
        "the line of a task is dotted until its own expert has come. If it falls afterwards, the model forgets that task. Here "
        f"the backward transfer is {100 * found.backward_transfer:+.1f} points.",
        key="sequel.lines",
        terms=("backward transfer", "accuracy"),
    )
