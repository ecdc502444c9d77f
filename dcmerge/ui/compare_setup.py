"""What is to be compared: methods, their parameters, and on how many images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.methods import Method, fitting_methods, method
from dcmerge.studies.glossary import explained, term
from dcmerge.studies.run_names import changed
from dcmerge.ui import comparing
from dcmerge.ui.controls import method_controls
from dcmerge.ui.shell import Page, readable_errors
from dcmerge.ui.text import plain
from dcmerge.ui.view import choose, remembered

#: Key of the comparison that is shown below.
SHOWN = "comparison"
#: Further settings of methods, as (slug, parameters).
_REFUSED, _FURTHER = "compare.refused", "compare.further"
QUICK, ALL = 40, 0
_LIMITS = {20: "20", QUICK: f"{QUICK} (quick)", 100: "100", 300: "300", ALL: "all"}
_DEFAULT = ["task_arithmetic", "ties", "tsv_m", "iso_c", "dc_merge"]


def setup_card(page: Page) -> None:
    """Choose and start; what runs is shown by the cards below."""
    if page.models.bench is None:
        st.info(
            "This set has no images, so methods cannot be compared by accuracy. The Alignment page compares their directions.",
            icon=":material/info:",
        )
        return
    known, others = fitting_methods(page.models.vectors, page.models.bench)
    with st.container(border=True):
        st.subheader("Choose methods")
        chosen = remembered(
            st.multiselect,
            "Methods",
            key="compared",
            default=[slug for slug in _DEFAULT if slug in known],
            options=list(known),
            format_func=lambda slug: known[slug].label,
            help="Zero-shot, the experts and weight averaging are always included. The others are measured against them.",
        )
        _why_not(others)
        limits = _limits()
        parameters = _parameters(page, [known[slug] for slug in chosen])
        further = _further_rows(known)
        spec = {
            "kind": "compare",
            "set": page.models.name,
            "split": "test",
            **limits,
            "methods": [*({"slug": slug, "parameters": parameters[slug]} for slug in chosen), *further],
        }
        st.button(
            "Start comparison",
            type="primary",
            icon=":material/play_arrow:",
            disabled=not (chosen or further),
            on_click=_start,
            args=(spec,),
            help="Runs in the background. You can close the page and come back.",
        )
        if refused := st.session_state.pop(_REFUSED, ""):
            st.error(plain(refused), icon=":material/error:")
        if not chosen and not further:
            st.info("Choose at least one method.", icon=":material/info:")


def _why_not(others: Mapping[str, str]) -> None:
    if others:
        reasons = "; ".join(f"{method(slug).title} {reason}" for slug, reason in others.items())
        st.caption(f"Not for this set: {plain(reasons)}.")


def _limits() -> dict[str, Any]:
    """Images a task and whether directions and features are measured too."""
    test, validation, why = st.columns(3, vertical_alignment="bottom")
    with test:
        limit = _limit(
            "Test images a task",
            "limit",
            f"{term('test split')} Every class has the same share, and the images are always the same. More images make the "
            "intervals narrower.",
        )
    with validation:
        val_limit = _limit(
            "Validation images a task",
            "val_limit",
            f"{term('validation split')} This takes the most time: about twelve values of α are tried for every method.",
        )
    with why:
        diagnosed = remembered(
            st.toggle,
            "Directions and features, too",
            key="diagnosed",
            default=True,
            help=f"Shows why a method scores as it does. Takes some seconds a method.\n\n{explained('DirSim', 'feature drift')}",
        )
    return {"limit": limit or None, "val_limit": val_limit or None, "diagnosed": diagnosed}


def _limit(label: str, key: str, help: str) -> int:
    return remembered(st.selectbox, label, key=key, default=QUICK, options=list(_LIMITS), format_func=_LIMITS.get, help=help)


def _parameters(page: Page, chosen: list[Method]) -> dict[str, dict[str, Any]]:
    """The methods' parameters, as on the Merge page: a value set there is set here too."""
    found = {}
    with st.expander("Parameters"):
        st.caption("These are the controls of the Merge page. Smoothing and ρ of DC-Merge are in the sidebar.")
        for one in chosen:
            st.markdown(f"**{plain(one.label)}**" + ("" if one.parameters else ": no parameters"))
            with readable_errors():
                found[one.slug] = method_controls(one, page.smoothing)
                if one.parameters:
                    st.button(
                        "Keep as a row of its own",
                        key=f"compare.keep.{one.slug}",
                        icon=":material/playlist_add:",
                        on_click=_keep,
                        args=(one.slug, found[one.slug]),
                        help="This setting then stays in the comparison when you change the controls.",
                    )
    return found


def _keep(slug: str, parameters: dict[str, Any]) -> None:
    kept = st.session_state.setdefault(_FURTHER, [])
    if (slug, parameters) not in kept:
        kept.append((slug, parameters))


def _drop(place: int) -> None:
    del st.session_state[_FURTHER][place]


def _further_rows(known: Mapping[str, Method]) -> list[dict[str, Any]]:
    """Settings that were kept as rows of their own, each with a button that drops it."""
    kept: list[tuple[str, dict[str, Any]]] = st.session_state.get(_FURTHER, [])
    for place, (slug, parameters) in enumerate(kept):
        if slug not in known:
            continue
        with st.container(horizontal=True, vertical_alignment="center"):
            settings = changed(slug, parameters) or "defaults"
            st.caption(plain(f"A row of its own: {known[slug].title} ({settings})."), width="stretch")
            st.button(
                "Drop", key=f"compare.drop.{place}", icon=":material/close:", on_click=_drop, args=(place,), width="content"
            )
    return [{"slug": slug, "parameters": parameters} for slug, parameters in kept if slug in known]


def _start(spec: comparing.Spec) -> None:
    try:
        choose(SHOWN, comparing.submit(spec))
    except InputError as error:
        st.session_state[_REFUSED] = str(error)
