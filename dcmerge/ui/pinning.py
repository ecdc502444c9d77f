"""Live looks as runs that stay, and each of them against the run that is pinned."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.evaluation import Difference
from dcmerge.runs import LOOK, Run, RunStore, paired
from dcmerge.runs.recording import measured_run
from dcmerge.studies.glossary import explained
from dcmerge.studies.run_names import label_of
from dcmerge.ui.choice import Choice
from dcmerge.ui.history import told
from dcmerge.ui.merging import Look, look_at
from dcmerge.ui.shell import Page
from dcmerge.ui.text import interval, plain

#: What this session recorded last: drawing the page again is no new look.
_LAST, _REFUSED = "pinning.last", "pinning.refused"


def kept_look(page: Page, choice: Choice, look: Look) -> Run | None:
    """The look as a run, recorded where it is in float32; None where the store cannot be used, which a box says then."""
    last: Run | None = st.session_state.get(_LAST)
    if last and last.evaluation is look.merged and last.alpha_origin == choice.scale.origin:
        return last
    run = _run_of(page, choice, look)
    if not look.precision.is_exact:
        st.session_state[_LAST] = run
        return run
    id = told(RunStore().record, run, default="")
    if not id:
        return None
    kept = st.session_state[_LAST] = replace(run, id=id)
    return kept


def _run_of(page: Page, choice: Choice, look: Look) -> Run:
    return measured_run(
        page.models.images,
        page.models.name,
        LOOK,
        choice.method.slug,
        look.merged,
        values=choice.parameters,
        scale=choice.scale,
        mix=page.models.vectors.mix,
        seconds=look.seconds,
    )


def against_pinned(page: Page, choice: Choice, run: Run) -> None:
    """How far this look is from the pinned run, and buttons to pin it or to pin nothing."""
    if refused := st.session_state.pop(_REFUSED, ""):
        st.warning(plain(refused), icon=":material/info:")
    pinned = told(RunStore().pinned, run.set, default=None)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(_told(run, pinned), help=explained("pinned run", "paired bootstrap", "points"), width="stretch")
        if pinned is None or pinned.id != run.id:
            st.button("Pin this", icon=":material/keep:", on_click=_pin, args=(page, choice, run), width="content")
        if pinned:
            st.button("Unpin", icon=":material/keep_off:", on_click=_unpin, args=(run,), width="content")


def _told(run: Run, pinned: Run | None) -> str:
    if pinned is None:
        return "No run is pinned. Pin one to see every change against it."
    if pinned.id == run.id:
        return "This is the pinned run. Change something to see the difference."
    difference = difference_to(run, pinned)
    if difference is None:
        on = plain(pinned.evaluation.measured_on)
        return f"The pinned run, **{plain(label_of(pinned))}**, was measured on other images ({on})."
    verdict = "" if difference.excludes_zero else ", which these images cannot tell from 0"
    return f"**{plain(interval(difference))}** points against the pinned run{verdict}: {plain(label_of(pinned))}"


def difference_to(run: Run, pinned: Run) -> Difference | None:
    """The paired difference; None where the two were not measured on the same images."""
    try:
        return paired(run, pinned)
    except InputError:
        return None


def _pin(page: Page, choice: Choice, run: Run) -> None:
    try:
        RunStore().pin(run.id or RunStore().record(_run_of(page, choice, _exact(page, choice, run))))
    except InputError as error:
        st.session_state[_REFUSED] = str(error)


def _exact(page: Page, choice: Choice, run: Run) -> Look:
    """The same look in float32, as what is kept must be."""
    on = run.evaluation
    return look_at(page.models, choice.method.slug, choice.parameters, choice.scale.value, split=on.split, limit=on.limit)


def _unpin(run: Run) -> None:
    try:
        RunStore().unpin(run.set)
    except InputError as error:
        st.session_state[_REFUSED] = str(error)
