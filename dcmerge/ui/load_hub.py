"""The Load page: models by their names on the Hugging Face hub, fetched only by a click that says how much."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dcmerge.errors import Cancelled
from dcmerge.sets.hub_sets import HubSet, fetch_all
from dcmerge.sets.layouts import FoundSet
from dcmerge.studies.glossary import explained
from dcmerge.ui import work
from dcmerge.ui.shell import readable_errors
from dcmerge.ui.text import plain

_WORK, _PLANS = "load.hub.fetching", "load.hub.plans"
_HELP = "owner/name as on the hub, then @ and a branch, a tag or a commit where you want that one."


def hub_set() -> FoundSet | None:
    """What two fields name; None until all of it is on this machine."""
    st.header("1. Which models of the hub?", help=explained("base", "expert", "LoRA adapter"))
    base = st.text_input("Base", key="load.hub.base", placeholder="owner/name", help=f"{_HELP} Adapters do without a base.")
    experts = st.text_area(
        "Experts, one on each line",
        key="load.hub.experts",
        placeholder="cats = owner/name@v1",
        help=f"{_HELP} In front of it the name of the task, if you want another than the model's.",
    )
    if not experts.strip():
        st.caption(
            "Models that other programs fetched before are taken from this machine. Nothing is downloaded before you click."
        )
        return None
    with readable_errors():
        named = HubSet.of(base, experts)
        missing = named.missing()
        if missing:
            _fetching(named, [name.text.removeprefix("hub:") for name in missing])
            return None
        st.header("2. What was found")
        st.success(f"All {len(named.names)} models are on this machine.", icon=":material/check_circle:")
        return named.found()


def _fetching(named: HubSet, missing: list[str]) -> None:
    """What is not here, how much that is once somebody asks, and the button that fetches it."""
    if (done := work.finished(_WORK)) is not None:
        if not done.error:
            st.rerun()
        st.error(plain(done.error), icon=":material/error:")
    if work.running(_WORK):
        work.watch(_WORK)
        return
    st.info(plain(f"Not on this machine: {', '.join(missing)}."), icon=":material/cloud_download:")
    st.button(
        "How much is it?",
        key="load.hub.ask",
        icon=":material/help:",
        on_click=st.session_state.__setitem__,
        args=(_PLANS, None),
        help="Asks the hub which files these models have. Only weights, settings and vocabularies count.",
    )
    if _PLANS not in st.session_state:
        return
    if (known := st.session_state[_PLANS]) is None or known[0] != named:
        with st.spinner("Asking the hub …"):
            known = named, named.plans()
        st.session_state[_PLANS] = known
    plans = known[1]
    size = _size(sum(plan.nbytes for plan in plans))
    st.dataframe(
        [
            {"model": plan.name.repository, "commit": plan.commit, "files": len(plan.files), "size": _size(plan.nbytes)}
            for plan in plans
        ],
        hide_index=True,
        alt="What would be fetched from the hub",
    )
    st.button(
        f"Fetch {size}",
        key="load.hub.fetch",
        type="primary",
        icon=":material/download:",
        on_click=work.start,
        args=(_WORK, "Fetching from the hub", lambda tell, cancelled: fetch_all(plans, _stoppable(tell, cancelled))),
        help="Files go into the hub's own folder on this machine, where other programs find them too.",
    )


def _stoppable(tell: work.Progress, cancelled: Callable[[], bool]) -> work.Progress:
    def told(share: float, text: str) -> None:
        if cancelled():
            raise Cancelled
        tell(share, text)

    return told


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
