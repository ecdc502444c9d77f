"""The Load page, last steps: whether the set fits together, and opening and remembering it."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.merging.prediction import Cost, predicted_costs
from dcmerge.sets.model_sets import SAVED
from dcmerge.sets.saved_sets import SavedSet, forget_set, save_set, saved_sets
from dcmerge.ui.home import findings_table
from dcmerge.ui.load_draft import Draft
from dcmerge.ui.load_groups import chosen_groups
from dcmerge.ui.shell import SET, opened, readable_errors
from dcmerge.ui.text import duration, plain
from dcmerge.ui.view import choose_for_next_page
from dcmerge.vectors.compatibility import examine, groups_of
from dcmerge.vectors.task_vectors import open_set

_SPECTRA = "pages/1_Spectra.py"


def remembered_sets() -> None:
    """The sets of earlier visits, to open again or to forget."""
    saved = saved_sets()
    if not saved:
        return
    st.header("Remembered sets")
    for one in saved.values():
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            images = "with images" if one.bench else "without images"
            st.markdown(f"**{plain(one.name)}**: {len(one.experts)} experts, {images}", width="stretch")
            if st.button("Show spectra", key=f"load.open.{one.name}", icon=":material/equalizer:"):
                _open(one)
            st.button(
                "Forget",
                key=f"load.forget.{one.name}",
                icon=":material/delete:",
                on_click=forget_set,
                args=(one.name,),
                help="Removes it from this list. The checkpoints stay as they are.",
            )


def examined(draft: Draft) -> Draft:
    """Whether the set fits together as far as headers tell, and what a merge of it will take; with the groups that are chosen."""
    st.header("4. Do they fit together?")
    with readable_errors():
        base, experts = open_set(draft.base, draft.experts, draft.qkv, draft.fit)
        draft = chosen_groups(draft, groups_of(base, experts))
        report = examine(base, experts, draft.fit, values=False)
    if report.errors:
        st.error("These checkpoints cannot be merged. The report says why.", icon=":material/error:")
    else:
        counts = report.counts()
        numbers = sum(p.numel for p in report.parameters if p.mergeable) / 1e6
        others = counts["vector"] + counts["convolution"]
        st.success(
            f"Names, shapes and dtypes fit: {counts['matrix']} matrices and {others} other tensors, "
            f"{numbers:.1f} million numbers.",
            icon=":material/check_circle:",
        )
    findings_table(report)
    if not report.errors:
        _costs(predicted_costs(base, experts, report.parameters))
    return draft


def _costs(costs: Mapping[str, Cost]) -> None:
    told = "; ".join(
        f"{title} about {duration(cost.seconds)} and at most {cost.peak_bytes / 2**30:.1f} GiB of memory"
        for title, cost in costs.items()
    )
    st.caption(
        f"Merging into a file will take, as far as shapes and the speed of this machine tell: {told}. Opening the set reads "
        "every file once and checks the values (NaN, equal experts)."
    )


def open_and_remember(draft: Draft) -> None:
    """One button: open the set, remember it, show its spectra."""
    st.header("5. Open")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Name of the set",
            draft.name,
            key=f"load.name.{draft.name}",
            max_chars=80,
            help="The name in the sidebar. A set of the same name is replaced.",
        )
        pressed = st.button("Open and show spectra", type="primary", icon=":material/equalizer:")
    if pressed:
        with readable_errors():
            one = draft.to_save(name)
        _open(one)


def _open(one: SavedSet) -> None:
    """Open it, and only then remember it; a set that cannot be opened is told in a box."""
    known = saved_sets().get(one.name)
    with readable_errors():
        save_set(one)
        try:
            opened(f"{SAVED}{one.name}")
        except InputError:
            forget_set(one.name) if known is None else save_set(known)
            raise
    choose_for_next_page(SET, f"{SAVED}{one.name}")
    st.switch_page(_SPECTRA)
