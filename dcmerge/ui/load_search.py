"""The Load page, first half: which folder, and what was recognised in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from dcmerge.checkpoints.paths import shown
from dcmerge.sets.layouts import FoundSet, Search
from dcmerge.sets.layouts.searcher import searcher
from dcmerge.sets.model_sets import roots
from dcmerge.studies.glossary import explained
from dcmerge.ui.shell import readable_errors
from dcmerge.ui.text import plain
from dcmerge.ui.view import choose, remembered

FOLDER = "folder"
_IN_FOLDER, _ON_HUB = "In a folder", "On the Hugging Face hub"


def from_hub() -> bool:
    """Whether the models are named as on the hub, instead of a folder."""
    where = st.segmented_control(
        "Where the models are",
        [_IN_FOLDER, _ON_HUB],
        default=_IN_FOLDER,
        required=True,
        key="load.where",
        label_visibility="collapsed",
    )
    return where == _ON_HUB


def folder_choice() -> Path | None:
    """A folder below the roots, by name or step by step; None where there is none to choose."""
    st.header("1. Where are the checkpoints?")
    allowed = roots()
    folders = {str(path): path for path in allowed.subfolders()}
    named = ", ".join(f"`{shown(root)}`" for root in allowed.folders)
    how = "The command that starts the app can name other folders: docs/own-models.md shows it"
    if not folders:
        st.info(
            f"The app reads files in {named}, and there is nothing in it. Put your checkpoints there. {how}.",
            icon=":material/folder_off:",
        )
        return None
    chosen = remembered(
        st.selectbox,
        "Folder",
        key=FOLDER,
        default=next(iter(folders)),
        options=list(folders),
        help=f"Type to search. The app reads files only in {named}. {how}.",
    )
    _step_inside(folders[chosen], folders)
    return folders[chosen]


def _step_inside(folder: Path, folders: Mapping[str, Path]) -> None:
    """Buttons to the folder above and to those inside."""
    above, inside = folder.parent, [path for path in folders.values() if path.parent == folder]
    with st.container(horizontal=True):
        if str(above) in folders:
            st.button("Up", icon=":material/arrow_upward:", key="load.up", on_click=choose, args=(FOLDER, str(above)))
        for path in inside[:12]:
            go = {"on_click": choose, "args": (FOLDER, str(path))}
            st.button(plain(path.name), icon=":material/folder:", key=f"load.in.{path}", **go)
    if len(inside) > 12:
        st.caption(f"There are {len(inside) - 12} more folders. Type in the field above to find one.")


def found_set(folder: Path) -> FoundSet | None:
    """What was recognised; where several sets lie in the folder, one is chosen."""
    st.header("2. What was found", help=explained("base", "expert", "LoRA adapter"))
    with readable_errors(), st.spinner("Looking through the folder …"):
        found = searcher().search(folder, roots())
    if not found.sets:
        st.info(
            "No base with its experts was found in this folder. A set is a pre-trained model and models that were fine-tuned "
            "from it. The page docs/own-models.md shows the layouts that are recognised.",
            icon=":material/search_off:",
        )
        _skipped_table(found.skipped)
        return None
    titles = _titles(found)
    place = 0
    if len(titles) > 1:
        label = f"This folder holds {len(titles)} sets. Choose one"
        place = st.selectbox(label, range(len(titles)), format_func=titles.__getitem__, key=f"load.which.{folder}")
    one = found.sets[place]
    size = sum(found.sizes.get(path, 0) for path in one.checkpoints)
    encoder = f", image encoder {one.encoder}" if one.encoder else ""
    st.markdown(
        f"**{plain(one.title)}** in {plain(str(one.folder))}: {len(one.experts)} experts, {size / 1e6:,.1f} MB on disk"
        f"{plain(encoder)}."
    )
    for note in one.notes:
        st.info(plain(note), icon=":material/info:")
    if one.convert:
        st.warning(plain(one.lacks), icon=":material/warning:")
        return None
    _skipped_table(one.skipped)
    return one


def _titles(found: Search) -> list[str]:
    """What tells the sets of a folder apart."""
    return [
        f"{one.folder.name}: {one.title}, {len(one.experts)} experts, {one.base.name if one.base else 'no base'}"
        for one in found.sets
    ]


def _skipped_table(skipped: Sequence[Any]) -> None:
    if skipped:
        with st.expander(f"{len(skipped)} files or folders are not used"):
            st.dataframe(
                [{"file": str(one.path), "why": one.reason} for one in skipped],
                hide_index=True,
                alt="Files that are not used, with the reason",
            )
