"""The Diagnose page: one question at a time, and only that one is computed."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dcmerge.ui import damage_results, damage_setup, layer_table, lost, tells, verdict
from dcmerge.ui.shell import Page
from dcmerge.ui.view import remembered


def _damage(page: Page) -> None:
    damage_setup.setup_card(page)
    damage_results.results_cards(page)


_VERDICT, _DAMAGE, _LOST, _LAYERS = "Will it merge?", "Damage map", "Lost images", "Every matrix"
_TELLS = "Does it tell?"
#: Question -> what answers it, and the sentence above it.
_VIEWS: dict[str, tuple[Callable[[Page], None], str]] = {
    _VERDICT: (
        verdict.verdict_cards,
        "Before anything is merged, the experts' weights alone tell how every pair goes together. Each number stands beside what "
        "chance would give.",
    ),
    _DAMAGE: (
        _damage,
        "A **damage map** puts every part of a merged model back, one at a time, and measures what each task gains or loses by "
        "it, on the same **validation** images. So you see where the merge hurts, and where it helps.",
    ),
    _LOST: (
        lost.lost_cards,
        "Which images does a task's own expert get right and the merge wrong? And which does the merge win? See them, with what "
        "each model says and how sure it is.",
    ),
    _LAYERS: (
        layer_table.layer_cards,
        "All matrices in one table: what the experts changed there, how much they get in each other's way, and what the merge "
        "keeps. Sort it, filter it, or subtract another method.",
    ),
    _TELLS: (
        tells.tells_cards,
        "Which numbers say how accurate a merge is, **without any label**? A study makes many merges of one set, measures each "
        "with labels and without, and counts how well the two agree.",
    ),
}


def diagnosis(page: Page) -> None:
    """The chosen question and its answer; without images the weights are what can be asked."""
    default = _DAMAGE if page.models.bench else _VERDICT
    view = remembered(
        st.segmented_control,
        "Question",
        key="diagnose",
        default=default,
        options=list(_VIEWS),
        required=True,
        follows=True,
        label_visibility="collapsed",
    )
    answer, about = _VIEWS[view]
    st.markdown(about)
    answer(page)
