"""The sets below the roots, for every page: searched beside the server, so that no file in a folder holds up a visitor."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from functools import lru_cache

import streamlit as st

from dcmerge.checkpoints import Roots
from dcmerge.errors import InputError
from dcmerge.sets.layouts import FoundSet
from dcmerge.sets.layouts.searcher import searcher
from dcmerge.sets.model_sets import FOLDER, folder_sets, roots

#: So long (seconds) a visitor waits for a search: the first one, a later one, and one for the very set that the address asks for.
_FIRST, _LATER, _ASKED = 10.0, 2.0, 120.0

Sets = Mapping[str, FoundSet]


def sets_in_folders(asked: str | None = None) -> Sets:
    """What lies below the roots, looked for again every while, and at once where something was put directly into a root.

    A search that takes long goes on; meanwhile there is what the last one found. ``asked`` names a set that is waited for.
    """
    allowed = roots()
    search = _current(allowed)
    last = _found_before().get(allowed.folders)
    asks_for_another = asked is not None and asked.startswith(FOLDER) and asked not in (last or {})
    try:
        return search.result(_ASKED if asks_for_another else _FIRST if last is None else _LATER)
    except NotYet:
        return last or {}


def still_searching() -> None:
    """Small print while a search goes on; the page is drawn again when it has ended."""
    search = _current(roots())
    if not search.done():
        _wait(search)


@st.fragment(run_every=2)
def _wait(search: Future[Sets]) -> None:
    if search.done():
        st.rerun()
    st.caption("Still looking through the folders that this app may read. Sets that are found appear here.")


def _current(allowed: Roots) -> Future[Sets]:
    folders = [folder for folder in allowed.folders if folder.is_dir()]
    return _search(tuple((str(folder), folder.stat().st_mtime_ns) for folder in folders))


@st.cache_resource(max_entries=4, ttl=30, show_spinner=False)
def _search(state: tuple[tuple[str, int], ...]) -> Future[Sets]:
    return _thread().submit(_found, Roots([folder for folder, _ in state]))


def _found(allowed: Roots) -> Sets:
    try:
        found = folder_sets(allowed, searcher().search)
    except InputError:  # the Load page, where a folder is chosen, tells it
        found = {}
    _found_before()[roots().folders] = found
    return found


@lru_cache(maxsize=1)
def _found_before() -> dict[tuple, Sets]:
    """What the last search of these roots found, for all visitors."""
    return {}


@lru_cache(maxsize=1)
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="search of the folders")
