"""The frame around every page: its head, the sidebar with what all pages share, and boxes for what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dcmerge.checkpoints.schemes import qkv_text
from dcmerge.errors import Cancelled, IncompatibleSet, InputError
from dcmerge.methods import load_named, method
from dcmerge.sets.layouts import FoundSet
from dcmerge.sets.model_sets import ModelSet, available, open_set_by_name, roots, stamp
from dcmerge.studies.inspection import matrices
from dcmerge.ui.background import BACKGROUND
from dcmerge.ui.browser_history import one_entry_a_page
from dcmerge.ui.controls import parameter_control
from dcmerge.ui.folders import sets_in_folders, still_searching
from dcmerge.ui.held import OPEN, memory_line
from dcmerge.ui.jobs_panel import jobs_panel
from dcmerge.ui.login import require_login
from dcmerge.ui.text import plain
from dcmerge.ui.view import arrive, asked_for, choose, place_for_unknown, remembered, unknown
from dcmerge.vectors.compatibility import Report
from dcmerge.vectors.layers import Layer, layer_of
from dcmerge.vectors.naming import place_of
from dcmerge.zoo import ZOOS

SET, LAYER = "set", "layer"
#: DC-Merge's parameters that every page shares: what is inspected is what is merged.
SHARED = ("smoothing", "rho")
#: So many sets are offered as buttons where the one that was asked for is unknown.
_OFFERED = 8


#: Two lines that become one. Not a Material icon: for those the browser would ask a server on the internet.
ICON = """<svg viewBox="0 0 16 16" fill="none" stroke="#2b86d9" stroke-width="2.2" stroke-linecap="round">
<path d="M3 2c0 5 5 4 5 8M13 2c0 5-5 4-5 8v4"/></svg>"""
ABOUT = "See why a model merge keeps or loses what its experts know, and tune it."
PAGES = (
    ("app.py", "Home", ":material/home:"),
    ("pages/0_Load.py", "Load", ":material/folder_open:"),
    ("pages/1_Spectra.py", "Spectra", ":material/equalizer:"),
    ("pages/2_Alignment.py", "Alignment", ":material/grid_on:"),
    ("pages/3_Merge.py", "Merge", ":material/merge:"),
    ("pages/4_Compare.py", "Compare", ":material/leaderboard:"),
    ("pages/5_Tune.py", "Tune", ":material/tune:"),
    ("pages/6_Methods.py", "Methods", ":material/menu_book:"),
    ("pages/7_Diagnose.py", "Diagnose", ":material/troubleshoot:"),
    ("pages/8_Runs.py", "Runs", ":material/history:"),
)


@dataclass(frozen=True)
class Page:
    """What a page works on: the chosen set, layer and smoothing."""

    models: ModelSet
    layer_name: str
    smoothing: dict[str, Any]

    @property
    def layer(self) -> Layer:
        return layer_of(self.models.vectors, self.layer_name)


def start_page(title: str, about: str, *, with_layer: bool = True, with_smoothing: bool = True) -> Page:
    """Begin a page: head, shared sidebar, and the chosen set opened; a set that cannot be opened ends the page in a box.

    Without ``with_smoothing`` the page draws those controls itself, where it needs them (see ``smoothing_controls``).
    """
    controls, name = _frame(title, about)
    if name is None:
        st.stop()
    with readable_errors():
        models = opened(name)
        with controls:
            if told := qkv_text(models.vectors.qkv, models.vectors.qkv_stored):
                st.caption(f"{told[0].upper()}{told[1:]}.")
            layer = _layer_control(models) if with_layer else ""
            return Page(models, layer, smoothing_controls(name) if with_smoothing else {})
    st.stop()


def start_page_without_set(title: str, about: str) -> None:
    """Begin a page that works whether the chosen set can be opened or not."""
    controls, name = _frame(title, about)
    with controls:
        smoothing_controls(name)


def _frame(title: str, about: str) -> tuple[DeltaGenerator, str | None]:
    """Head and sidebar; the place for a page's own controls there, and the name of the chosen set, None of one unknown here."""
    st.set_page_config(page_title=f"{title} · DC-Merge", page_icon=ICON, layout="wide", menu_items={"About": ABOUT})
    require_login()
    load_named()  # before anything asks for the methods; the Methods page tells what was left out
    arrive(title)
    one_entry_a_page()
    _navigation()
    st.title(title)
    st.markdown(about)
    place_for_unknown()
    with st.sidebar:
        # Drawn before the set is opened, which may end the page, and below the controls, which it must not move.
        controls = st.container()
        jobs_panel()
        memory_line()
    with controls:
        sets = available(roots(), sets_in_folders(asked_for(SET)))
        still_searching()
        name = remembered(
            st.selectbox,
            "Model set",
            key=SET,
            default=first_set(),
            options=list(sets),
            replaced=False,
            placeholder="Choose a set",
            format_func=lambda n: sets.get(n, n),
            help="A base and its experts: the embedded demos, the sets that you opened on the Load page, and every set in the "
            "folders that this app may read.",
        )
    if name is None:
        _unknown_set(sets)
    return controls, name


def _unknown_set(sets: Mapping[str, str]) -> None:
    """A link to a set that is not here opens no other one: other numbers would be read as those that it promised."""
    asked = plain(str(unknown(SET)))
    st.error(
        f"The link asks for the set {asked}, which is not known here. It may be remembered by another server, or lie in a folder "
        "that this app may not read, or be gone. Nothing is shown in its place. Choose one of the sets that are here:",
        icon=":material/link_off:",
    )
    with st.container(horizontal=True):
        for name in list(sets)[:_OFFERED]:
            st.button(plain(sets[name]), key=f"offer.{name}", icon=":material/folder_open:", on_click=choose, args=(SET, name))
    if len(sets) > _OFFERED:
        st.caption(f"The list in the sidebar has {len(sets) - _OFFERED} more.")


def _navigation() -> None:
    """Links to all pages: Streamlit's own list would call the home page after its file."""
    with st.sidebar:
        for path, label, icon in PAGES:
            st.page_link(path, label=label, icon=icon)
        st.divider()


#: What a user of the pages can do about an error, by the error's ``remedy``.
_REMEDIES = {
    "different_bases": "If they are one base under two names, confirm that on the Load page.",
    "base": "Choose the base on the Load page.",
    "download": "Turn on the download on the Load page.",
}


@contextmanager
def readable_errors() -> Iterator[None]:
    """What a user can cause becomes a box that says what was expected and what came, and ends the page."""
    try:
        yield
    except IncompatibleSet as error:
        report = error.report
        assert isinstance(report, Report)  # the errors' room, below all others, cannot name its class
        st.error("This set cannot be merged.", icon=":material/error:")
        st.dataframe(
            [{"task": f.task or "all", "what": f.what, "detail": f.text} for f in report.errors],
            hide_index=True,
            alt="Reasons why the set cannot be merged",
        )
        st.stop()
    except InputError as error:
        st.error(plain(f"{error} {_REMEDIES.get(error.remedy, '')}".strip()), icon=":material/error:")
        st.stop()
    except Cancelled:
        st.info("Cancelled. Nothing was changed.", icon=":material/cancel:")
        st.stop()


def first_set() -> str:
    """Name of the set that a visitor sees first."""
    return next(iter(ZOOS))


def opened(name: str) -> ModelSet:
    """The set of that name, opened once as long as its files stay as they are."""
    in_folders = sets_in_folders(name)
    return _open(name, stamp(name, roots(), in_folders), in_folders)


@st.cache_resource(max_entries=3, show_spinner="Opening the checkpoints and checking that they fit together …")
def _open(name: str, stamp: str, _in_folders: Mapping[str, FoundSet]) -> ModelSet:
    with BACKGROUND.first():
        models = open_set_by_name(name, roots(), in_folders=_in_folders, remembered=True)
    OPEN[models.key] = models
    return models


def _layer_control(models: ModelSet) -> str:
    names = matrices(models.vectors)
    if not names:
        raise InputError("expected at least one matrix among the parameters, got none, so there are no spectra to show")
    default = names[len(names) // 2]
    return remembered(
        st.selectbox,
        "Matrix",
        key=LAYER,
        default=default,
        options=names,
        format_func=lambda n: place_of(n).label,
        help="The weight matrix that Spectra and Alignment show. On the Spectra page you can also click it in the overview.",
    )


def smoothing_controls(set_name: str | None) -> dict[str, Any]:
    """How DC-Merge smooths, the same on all pages. ρ is drawn where it counts, and its value is kept where it is not.

    The first demo arrives with linear smoothing, so that there is something to see and to tune; other sets with the default.
    """
    smoothing, rho = (method("dc_merge").parameters[name] for name in SHARED)
    default = "linear" if set_name == first_set() else smoothing.default
    chosen = parameter_control(replace(smoothing, default=default), key="smoothing", follows=True)
    values = {"smoothing": chosen, "rho": rho.default}
    if values["smoothing"] == "linear":
        values["rho"] = parameter_control(rho, key="rho")
    return values
