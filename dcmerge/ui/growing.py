"""Cards that grow: drawn at once with what is found, and drawn again in their place as the rest comes from the background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from dcmerge.ui.background import BACKGROUND, Filling
from dcmerge.ui.text import duration, plain

#: Studies of so many numbers are waited for: that takes a second or two, and a chart that grows would only be restless.
WAITED_FOR = 1 << 26
#: Seconds between two drawings: a browser takes a tenth of one for each.
_EVERY, _LOOK = 2.0, 0.02
_WHOLE_PAGE = "growing.whole_page"


def growing(fillings: Sequence[Filling[Any]], draw: Callable[..., None], label: str, unit: str = "matrices") -> None:
    """``draw`` with every study as far as it is found (None of one that shows no part), until all are whole.

    ``label`` says what is computed, in words ("Computing singular values"), ``unit`` what is counted. ``draw`` may hold
    widgets; a callback of theirs that changes something elsewhere on the page calls ``redraw_page``. Small studies are waited
    for; of one that failed a box tells why.
    """
    st.session_state.pop(_WHOLE_PAGE, None)
    small = [one for one in fillings if not one.done and one.entries <= WAITED_FOR]
    if small:
        with st.spinner(f"{label} …"):
            _wait(small)
    if all(one.done for one in fillings):
        _drawn(fillings, draw)
    else:
        st.fragment(_growing, run_every=_EVERY)(fillings, draw, label, unit)


def redraw_page() -> None:
    """For the callback of a widget within a card that grows: draw the whole page, and not the card alone."""
    st.session_state[_WHOLE_PAGE] = True


def _wait(fillings: Sequence[Filling[Any]]) -> None:
    while not all(one.done for one in fillings):
        BACKGROUND.ask(*fillings)
        BACKGROUND.wait(_LOOK)
        st.session_state.get(_WHOLE_PAGE)  # here Streamlit ends a run that nobody looks at any more


def _growing(fillings: Sequence[Filling[Any]], draw: Callable[..., None], label: str, unit: str) -> None:
    BACKGROUND.ask(*fillings)
    if all(one.done for one in fillings) or st.session_state.pop(_WHOLE_PAGE, False):
        st.rerun()  # the only way to end the polling
    _drawn(fillings, draw)
    st.progress(*_progress(fillings, label, unit))


def _drawn(fillings: Sequence[Filling[Any]], draw: Callable[..., None]) -> None:
    if errors := dict.fromkeys(one.error for one in fillings if one.error):
        for error in errors:
            st.error(plain(error), icon=":material/error:")
        return
    draw(*(one.so_far() for one in fillings))


def _progress(fillings: Sequence[Filling[Any]], label: str, unit: str) -> tuple[float, str]:
    """How much is found, and the sentence for it."""
    known, total = sum(len(one.found) for one in fillings), sum(len(one.names) for one in fillings)
    left = [one.seconds_left for one in fillings if not one.done]
    told = [seconds for seconds in left if seconds is not None]
    # They grow in turn, so each takes as long as all of them.
    rest = f", about {duration(max(told))} left" if told and len(told) == len(left) else ""
    return known / max(1, total), f"{label}: {known} of {total} {unit}{rest}"
