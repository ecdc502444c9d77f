"""What a user should know of a merge or of a set, as boxes and small print."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from dcmerge.errors import WARNING
from dcmerge.ui.text import plain


def show_notes(notes: Iterable[str]) -> None:
    """Warnings in a box each, everything else in one line of small print."""
    said = []
    for note in notes:
        if note.startswith(WARNING):
            text = note.removeprefix(WARNING)
            st.warning(plain(f"{text[0].upper()}{text[1:]}."), icon=":material/warning:")
        else:
            said.append(plain(note))
    if said:
        st.caption(f"This merge {'; '.join(said)}.")
