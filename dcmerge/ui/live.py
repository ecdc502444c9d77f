"""The quick look of the Merge page: merged and evaluated again at every change."""

from __future__ import annotations

import streamlit as st

from dcmerge import plots
from dcmerge.evaluation import Evaluation, paired_difference, weak_experts
from dcmerge.studies.glossary import explained, term
from dcmerge.ui.charts import show
from dcmerge.ui.choice import Choice
from dcmerge.ui.merging import Look, merged_once, quick_look
from dcmerge.ui.notes import show_notes
from dcmerge.ui.pinning import against_pinned, kept_look
from dcmerge.ui.shell import Page, readable_errors
from dcmerge.ui.text import interval, percent, plain
from dcmerge.ui.view import remembered

_LIMITS = [25, 50, 100, 200]
#: The look before the last change and the newest one, and on what they were made.
_LOOKS, _LOOKED_AT = "live.looks", "live.looked_at"


def live_card(page: Page, choice: Choice) -> Look | None:
    """The quick look: merged again at every change; None of a set without images."""
    if page.models.bench is None:
        st.info(
            "This set has no images, so there is no accuracy to show. You can merge and save it below.", icon=":material/info:"
        )
        return None
    with st.container(border=True):
        left, right = st.columns([4, 1], vertical_alignment="center")
        left.subheader("Live accuracy", help=explained("accuracy", "validation split"))
        with right:
            limit = remembered(
                st.selectbox,
                "Quick subset",
                key="quick",
                default=50,
                options=_LIMITS,
                format_func=lambda n: f"{n} images a task",
                help="How many validation images are used after every change: always the same ones, with the same share of every "
                "class. More images make the intervals narrower and take longer.",
            )
        with readable_errors(), st.spinner("Merging and evaluating …"):
            look = quick_look(page.models, choice.method.slug, choice.parameters, choice.scale.value, limit)
        run = kept_look(page, choice, look)
        show_notes(weak_experts(look.zero_shot, look.experts))
        _metrics(look.zero_shot, look.merged, look.experts)
        _change(page, look.merged, limit)
        if run:
            against_pinned(page, choice, run)
        show_notes(merged_once(page.models, choice.method.slug, choice.parameters).notes(choice.scale.value, choice.scale.origin))
        show(
            plots.accuracy_bars(look.zero_shot, look.merged, look.experts, page.models.task_titles, label=choice.method.title),
            "grey is the base without fine-tuning, green the task's own expert, blue the merged model. The whiskers are 95 % "
            f"intervals: with {limit} images a task, a difference inside them means nothing. {_arithmetic(look)}",
            key="merge.live",
            terms=("zero-shot", "expert", "interval"),
        )
    return look


def _arithmetic(look: Look) -> str:
    if look.precision.is_exact:
        return "Computed in float32."
    return (
        "The merged model is computed in bfloat16, which is faster here and may differ in single images. What you evaluate, pin "
        "or save is computed in float32."
    )


def _change(page: Page, merged: Evaluation, limit: int) -> None:
    """What the last move changed, with its interval, and what to do where these images cannot tell it."""
    known: tuple[Evaluation | None, Evaluation] | None = st.session_state.get(_LOOKS)
    fits = known is not None and st.session_state.get(_LOOKED_AT) == (page.models.key, limit)
    before = known[0] if known and fits and known[1] is merged else known[1] if known and fits else None
    st.session_state[_LOOKS], st.session_state[_LOOKED_AT] = (before, merged), (page.models.key, limit)
    if before is None:
        return
    change = paired_difference(merged, before)
    text = f"**{plain(interval(change))}** points against the state before your last change"
    if change.excludes_zero or not change.high - change.low > abs(change.value):
        st.markdown(f"{text}.", help=explained("paired bootstrap", "points"))
        return
    hint = f"Choose more than {limit} images a task" if limit < _LIMITS[-1] else "Evaluate on all images"
    st.markdown(
        f"{text}: the interval is wider than the change. {hint} to tell more.", help=explained("paired bootstrap", "points")
    )


def _metrics(zero_shot: Evaluation, merged: Evaluation, experts: Evaluation) -> None:
    gain = paired_difference(merged, zero_shot)
    with st.container(horizontal=True):
        st.metric(
            "Mean accuracy",
            percent(merged.mean),
            border=True,
            help=f"Measured on the {merged.measured_on}.\n\n{explained('accuracy', 'paired bootstrap', 'points')}",
            delta=f"{100 * gain.value:+.1f} points over zero-shot [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]",
            delta_color="normal" if gain.excludes_zero else "off",
            delta_arrow="auto" if gain.excludes_zero else "off",
            height="stretch",
        )
        st.metric(
            "Normalised",
            percent(merged.mean_normalised),
            border=True,
            height="stretch",
            help=term("normalised accuracy"),
        )
        st.metric("Zero-shot", percent(zero_shot.mean), border=True, height="stretch", help=term("zero-shot"))
        st.metric(
            "Experts",
            percent(experts.mean),
            border=True,
            height="stretch",
            help="The mean of all experts, each on its own task. It is the ceiling of a merge.",
        )
        worst = merged.worst
        st.metric(
            "Worst task",
            percent(worst.accuracy),
            border=True,
            height="stretch",
            help=f"Here it is {worst.task}. {term('worst task')}",
        )
