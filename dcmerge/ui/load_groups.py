"""The Load page: boxes for groups of parameters that a merge of different tasks may want to leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from dcmerge.studies.glossary import term
from dcmerge.ui.load_draft import Draft
from dcmerge.vectors.compatibility import Group

#: What each group is, for people; titles are those of the report.
_ABOUT = {
    "classification heads": "The last layer of a classifier, with one output for each of its classes.",
    "pre-training heads": "The layers that predict tokens: what a language model answers with, or was pre-trained with.",
    "poolers": "The layer that makes one vector of a whole text or image.",
    "positional embeddings": "What the model adds to tell where in a text or image something stands.",
    "token embeddings": "The table of the vocabulary: one row for each token.",
}


def chosen_groups(draft: Draft, groups: Sequence[Group]) -> Draft:
    """One box a group; what is not ticked stays as in the base. The draft with what that leaves out."""
    if not groups:
        return draft
    st.markdown("**Merge these groups, too**", help=f"Without a tick a group stays as in the base. {term('base')}")
    left_out: list[str] = []
    with st.container(horizontal=True):
        for group in groups:
            if not _ticked(draft, group):
                left_out += group.common
    return replace(draft, fit=draft.fit.more_without(left_out))


def _ticked(draft: Draft, group: Group) -> bool:
    """The state of a group's box; of a group that not all have there is nothing to choose."""
    about, some = _ABOUT.get(group.role.title, ""), len(group.common) < len(group.names)
    if not group.common:
        about += " They cannot be merged here: the base and the experts have them in different sizes, or not all have them."
    elif some:
        about += f" {len(group.common)} of {len(group.names)} are common to all and can be merged."
    key = f"load.group.{draft.name}.{'/'.join(draft.experts)}.{group.role.title}.{bool(group.common)}"
    title = group.role.title.capitalize()
    return st.checkbox(title, bool(group.common), key=key, disabled=not group.common, help=about) or not group.common
