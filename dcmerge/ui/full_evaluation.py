"""The slow part of the Merge page, beside the page: α chosen on validation, and the one look at the test split."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import streamlit as st

from dcmerge import plots
from dcmerge.evaluation import Scale, choose_scale
from dcmerge.studies.glossary import explained
from dcmerge.ui import work
from dcmerge.ui.charts import show, splits_caption
from dcmerge.ui.choice import Choice, found_scales, keep_scale
from dcmerge.ui.history import Run, described, record
from dcmerge.ui.merging import Look, look_at, merged_once
from dcmerge.ui.shell import Page
from dcmerge.ui.text import percent, plain

_WORK, _NOTE, _TESTS = "merge.work", "merge.note", "merge.tests"


def full_evaluation_card(page: Page, choice: Choice) -> None:
    """Choice of α on validation and the one look at the test split, in the background."""
    if page.models.bench is None:
        return
    with st.container(border=True):
        st.subheader("Choose α on validation, report on test", help=explained("α", "validation split", "test split"))
        st.markdown("Find the α with the best mean normalised accuracy on validation images. Then measure once on test images.")
        busy = work.running(_WORK)
        with st.container(horizontal=True):
            st.button(
                "Find α",
                icon=":material/search:",
                disabled=busy,
                on_click=_start_scale,
                args=(page, choice),
                help="Tries α from 0.1 to 3.0 on the validation images, and more if the best is the last. Then sets the slider.",
            )
            st.button(
                "Evaluate on test",
                icon=":material/checklist:",
                disabled=busy,
                on_click=_start_test,
                args=(page, choice),
                help="Measures on all test images of every task, with the α above.",
            )
        # First, because the watch redraws the page as long as it finds finished work.
        _collect(page)
        work.watch(_WORK)
        _test_bars(page, choice)
        curves = found_scales(page)
        if curves:
            lines = {described(slug, dict(parameters), c.value): c for (_, slug, parameters), c in curves.items()}
            show(
                plots.scale_curve(lines, choice.scale.value),
                "the top of a line is the best α of that method. A flat top means that α hardly matters, a steep side that it "
                "does. Every fourth value was tried first, then all values near the best.",
                key="merge.curve",
                terms=("α", "normalised accuracy", "validation split"),
            )


def _start_scale(page: Page, choice: Choice) -> None:
    def find(progress: work.Progress, cancelled: Any) -> tuple[Choice, Scale]:
        merged = merged_once(page.models, choice.method.slug, choice.parameters)
        return choice, choose_scale(
            page.models.images, merged.deltas, modules=merged.modules, progress=progress, cancelled=cancelled
        )

    work.start(_WORK, f"Choosing α for {choice.method.title}", find)


def _start_test(page: Page, choice: Choice) -> None:
    def evaluate(progress: work.Progress, cancelled: Any) -> tuple[Choice, Look]:
        return choice, look_at(
            page.models,
            choice.method.slug,
            choice.parameters,
            choice.scale.value,
            split="test",
            progress=progress,
            cancelled=cancelled,
        )

    work.start(_WORK, f"Evaluating {choice.method.title}", evaluate)


def _collect(page: Page) -> None:
    """Take over what the background work found."""
    done = work.finished(_WORK)
    if done and done.error:
        st.warning(plain(done.error), icon=":material/info:")
    elif done:
        choice, result = done.result
        note = _take_scale(page, choice, result) if isinstance(result, Scale) else _take_test(page, choice, result)
        st.session_state[_NOTE] = note
        st.rerun()
    if note := st.session_state.get(_NOTE):
        st.success(plain(note), icon=":material/check_circle:")


def _take_scale(page: Page, choice: Choice, scale: Scale) -> str:
    keep_scale(choice, page, scale)
    return f"The best for {choice.method.title} is α = {scale.value:g} ({scale.origin}). The slider is set to it."


def _take_test(page: Page, choice: Choice, look: Look) -> str:
    found = look.merged
    record(Run(page.models.key, choice.method.slug, choice.parameters, choice.scale, found, datetime.now()))
    st.session_state.setdefault(_TESTS, {})[(*choice.key(page), choice.scale.value)] = look
    return (
        f"{choice.method.title}: {percent(found.mean)} absolute, {percent(found.mean_normalised)} normalised "
        f"({found.measured_on}; α = {choice.scale.value:g}, {choice.scale.origin})."
    )


def _test_bars(page: Page, choice: Choice) -> None:
    """Per-task accuracy on test, where the current choice was evaluated there."""
    look: Look | None = st.session_state.get(_TESTS, {}).get((*choice.key(page), choice.scale.value))
    if look:
        show(
            plots.accuracy_bars(look.zero_shot, look.merged, look.experts, page.models.task_titles, label=choice.method.title),
            "these are the numbers to report, on all test images. If α came from the search above, it was chosen without them. "
            "The whiskers are 95 % intervals.",
            key="merge.test",
            terms=("test split", "zero-shot", "expert", "interval"),
        )
        splits_caption(look.merged)
