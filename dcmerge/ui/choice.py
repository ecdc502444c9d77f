"""What is to be merged: method, parameters and scale, as chosen on the Merge page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from dcmerge.evaluation import Scale
from dcmerge.merging.recipe import USUAL
from dcmerge.methods import Method, fitting_methods, method
from dcmerge.methods.dc_merge import smoothing_in_use
from dcmerge.runs import SetId
from dcmerge.studies.glossary import term
from dcmerge.ui import tuning
from dcmerge.ui.controls import method_controls
from dcmerge.ui.shell import SHARED, Page, readable_errors, smoothing_controls
from dcmerge.ui.single_jobs import just_found, scales_of
from dcmerge.ui.view import choose, remembered

#: Slug -> the α that its slider is to be set to.
_FOUND = "choice.found"


@dataclass(frozen=True)
class Choice:
    """Method, parameters and scale as chosen on the page."""

    method: Method
    parameters: Mapping[str, Any]
    scale: Scale = field(default_factory=lambda: Scale(1.0, "set by hand"))

    def key(self, page: Page) -> tuple:
        return (page.models.key, self.method.slug, tuple(sorted(self.parameters.items())))


def use_scale(slug: str, scale: float) -> None:
    """Set the slider of that method when it is drawn next, whichever is chosen by now."""
    st.session_state.setdefault(_FOUND, {})[slug] = scale


def found_scales(page: Page) -> dict[bool, dict[tuple, Scale]]:
    """What searches and sweeps on these models chose, of any session, and the points that this one took, by ``Choice.key``.

    Under True what was chosen by labels, under False what the searches found that read none. It looks through all jobs.
    """
    if page.models.bench is None:
        return {True: {}, False: {}}
    hash = SetId.of(page.models.vectors, page.models.name).hash
    found = scales_of(page.models, hash)
    found[True] |= {**tuning.chosen_of(page.models, hash), **tuning.taken(page.models)}
    return {labels: {(page.models.key, *key): scale for key, scale in own.items()} for labels, own in found.items()}


def choice_of_method(page: Page) -> Choice:
    """Method, its generated controls, and α."""
    known, others = live_methods(page)
    for slug, scale in just_found():
        use_scale(slug, scale.value)
    with st.container(border=True):
        left, right = st.columns([1, 2])
        with left:
            slug = remembered(
                st.selectbox,
                "Method",
                key="method",
                default="dc_merge",
                options=list(known),
                format_func=lambda s: known[s].label,
                help="Every method that can merge this set while you wait. "
                + "".join(f"{method(slug).title} {reason}. " for slug, reason in others.items()),
            )
        chosen = known[slug]
        right.markdown(chosen.idea)
        right.caption(f"{chosen.source}. {_variant(page, chosen)}".strip())
        with readable_errors():
            with st.container(horizontal=True):  # in one row: what they change stays on the screen
                shared = smoothing_controls(page.models.name) if _smooths(chosen) else {}
            parameters = method_controls(chosen, shared)
        usual = chosen.usual_scale_for(page.models.vectors, parameters)
        alpha = _alpha_control(chosen, usual)
    choice = Choice(chosen, parameters)
    found = [own.get(choice.key(page)) for own in found_scales(page).values()]
    by_hand = Scale(alpha, USUAL if alpha == usual else "set by hand")
    return Choice(chosen, parameters, next((one for one in found if one and one.value == alpha), by_hand))


def live_methods(page: Page) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods that can merge this set while one waits, and of the others why they cannot; both by slug."""
    known, others = fitting_methods(page.models.vectors, page.models.bench)
    training = {
        slug: "learns step by step, which takes minutes (the Compare page runs it)" for slug, one in known.items() if one.trains
    }
    return {slug: one for slug, one in known.items() if slug not in training}, others | training


def _alpha_control(chosen: Method, usual: float) -> float:
    """α, kept for each method by itself; what a search found is set here, before the slider is drawn."""
    key, found = f"{chosen.slug}.alpha", st.session_state.setdefault(_FOUND, {}).pop(chosen.slug, None)
    if found is not None:
        choose(key, found)
    highest = max(5.0, found or 0.0, st.session_state.get(key, 0.0))
    return remembered(
        st.slider,
        "Scale α",
        key=key,
        default=usual,
        min_value=0.0,
        max_value=highest,
        step=0.05,
        follows=True,  # another set or smoothing has another usual α
        help=term("α") + (f"\n\nComparisons keep it at {usual:g}: {chosen.fixed_scale}." if chosen.fixed_scale else ""),
    )


def _variant(page: Page, chosen: Method) -> str:
    """Which variant of DC-Merge runs, in words."""
    if chosen.slug != "dc_merge":
        return ""
    kind = page.models.vectors.kind
    path = "LoRA" if kind == "lora" else "full fine-tuning"
    return f"This is the variant for {path}, where auto smoothing is {smoothing_in_use('auto', kind)}."


def _smooths(chosen: Method) -> bool:
    """Whether the smoothing that the pages share is the method's own; a plugin's of that name is another one."""
    return not chosen.origin and set(SHARED) <= set(chosen.parameters)
