"""The slow part of the Merge page, as background jobs: α chosen on validation, and the one look at the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dcmerge import plots
from dcmerge.evaluation import EXPERTS, ZERO_SHOT, Scale
from dcmerge.studies.glossary import explained
from dcmerge.studies.run_names import described
from dcmerge.ui import single_jobs
from dcmerge.ui.charts import show, splits_caption
from dcmerge.ui.choice import Choice, found_scales, use_scale
from dcmerge.ui.history import set_of
from dcmerge.ui.job_buttons import refused
from dcmerge.ui.merging import Look
from dcmerge.ui.shell import Page
from dcmerge.ui.text import duration, percent, plain

#: How many searches the curve shows, the newest.
_CURVES = 6
#: What the choice without labels does and costs; the figures stand in docs/results.md.
_WITHOUT = (
    "Takes the α at which the merge gives the same answers as the task's own expert on most validation images. No label is read, "
    "only the experts are needed. Over 26 merges each of the demo's experts and of its adapters this lost 0.4 and 0.3 points of "
    "normalised accuracy against the choice by labels, on average; a blind choice lost 4.2 and 6.1."
)


def full_evaluation_card(page: Page, choice: Choice, look: Look | None) -> None:
    """Choice of α on validation and the one look at the test split. ``look`` tells how fast this machine is."""
    if page.models.bench is None:
        return
    with st.container(border=True):
        st.subheader("Choose α on validation, report on test", help=explained("α", "validation split", "test split"))
        st.markdown(
            "Find the α with the best mean normalised accuracy on validation images. Then measure once on test images. Both run "
            "in the background: you can leave the page, reload it or close it."
        )
        find, test = _specifications(page, choice)
        _buttons(find, test, choice.method.gives_one_model)
        _how_long(page, look)
        if why := refused(single_jobs.REFUSED):
            st.error(plain(why), icon=":material/error:")
        single_jobs.watch(page.models)
        scales = found_scales(page)
        _found(page, choice, scales)
        _test_bars(page, choice, test)
        _curves(choice, scales)


def _buttons(find: dict[str, Any], test: dict[str, Any], one_model: bool) -> None:
    with st.container(horizontal=True):
        st.button(
            "Find α",
            icon=":material/search:",
            on_click=single_jobs.start,
            args=(find,),
            help="Tries α from 0.1 to 3.0 on the validation images, and more if the best is the last. Then sets the slider.",
        )
        st.button(
            "Choose α without labels",
            icon=":material/label_off:",
            on_click=single_jobs.start,
            args=({**find, "labels": False},),
            disabled=not one_model,
            help=_WITHOUT if one_model else "Needs a method that gives one model for all tasks. This one keeps a part for each.",
        )
        st.button(
            "Evaluate on test",
            icon=":material/checklist:",
            on_click=single_jobs.start,
            args=(test,),
            help="Measures base, experts and the merged model on all test images of every task, with the α above.",
        )


def _specifications(page: Page, choice: Choice) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the two buttons start."""
    how = {"slug": choice.method.slug, "parameters": dict(choice.parameters)}
    chosen = {"set": page.models.name, "method": how, "mix": page.models.vectors.mix.to_data()}
    scale = {"scale": choice.scale.value, "scale_origin": choice.scale.origin}
    return {"kind": "scale", **chosen}, {"kind": "evaluate", **chosen, **scale, "split": "test"}


def _how_long(page: Page, look: Look | None) -> None:
    """Before the click: how long it takes on this machine, and what is in the queue before it."""
    if look is None:
        return
    find, test = single_jobs.seconds_of(page.models.images, look.pace)
    ahead = single_jobs.ahead_text()
    st.caption(
        f"Find α takes about {duration(find)}, with labels or without, Evaluate on test about {duration(test)}, by the pace of "
        f"the live look. {ahead}"
    )


def _found(page: Page, choice: Choice, found: Mapping[bool, Mapping[tuple, Scale]]) -> None:
    """What the newest searches of this choice found, by labels and without, and a button to use it where the slider differs."""
    for labels, best in ((True, "The best"), (False, "The best without labels")):
        scale = found[labels].get(choice.key(page))
        if scale is None:
            continue
        text = plain(f"{best} for {choice.method.title} is α = {scale.value:g} ({scale.origin}).")
        if scale.value == choice.scale.value:
            st.success(f"{text} The slider is set to it.", icon=":material/check_circle:")
            continue
        st.info(f"{text} The slider is at {choice.scale.value:g}.", icon=":material/info:")
        use = {"on_click": use_scale, "args": (choice.method.slug, scale.value), "icon": ":material/tune:"}
        st.button(f"Use α = {scale.value:g}", key=f"merge.use.{'labels' if labels else 'blind'}", **use)


def _test_bars(page: Page, choice: Choice, test: dict[str, Any]) -> None:
    """Accuracy on test, where the current choice was evaluated there."""
    hash = set_of(page).hash
    found = single_jobs.tested(page.models, hash, choice.method.slug, choice.parameters, choice.scale.value)
    if found is None:
        return
    merged = found["merged"]
    told = (
        f"{choice.method.title}: {percent(merged.mean)} absolute, {percent(merged.mean_normalised)} normalised "
        f"({merged.measured_on}; α = {choice.scale.value:g}, {choice.scale.origin})."
    )
    st.success(plain(told), icon=":material/check_circle:")
    show(
        plots.accuracy_bars(found[ZERO_SHOT], merged, found[EXPERTS], page.models.task_titles, label=choice.method.title),
        "these are the numbers to report, on all test images. If α came from the search above, it was chosen without them. "
        "The whiskers are 95 % intervals.",
        key="merge.test",
        terms=("test split", "zero-shot", "expert", "interval"),
    )
    splits_caption(merged)


def _curves(choice: Choice, found: Mapping[bool, Mapping[tuple, Scale]]) -> None:
    """The newest searches on this set, a line each: those by accuracy, and in a figure of their own those without labels."""
    if lines := _lines(found[True]):
        show(
            plots.scale_curve(lines, choice.scale.value),
            "the top of a line is the best α of that method. A flat top means that α hardly matters, a steep side that it does. "
            "Every fourth value was tried first, then all values near the best.",
            key="merge.curve",
            terms=("α", "normalised accuracy", "validation split"),
        )
    if lines := _lines(found[False]):
        show(
            plots.scale_curve(lines, choice.scale.value, "images answered as the expert does"),
            "the top of a line is the α at which the merge answers most images as the task's own expert does, right or wrong. No "
            "label was read.",
            key="merge.blind_curve",
            terms=("α", "expert", "validation split"),
        )


def _lines(found: Mapping[tuple, Scale]) -> dict[str, Scale]:
    """Names of the newest searches that tried more than one α, with what they tried."""
    newest = [(key, scale) for key, scale in found.items() if scale.curve][:_CURVES]
    return {described(slug, dict(parameters), scale.value): scale for (_, slug, parameters), scale in newest}
