"""What the server holds in memory for its pages, within the bound of the process, and the sidebar's line that says how much."""

from __future__ import annotations

from weakref import WeakValueDictionary

import streamlit as st

from dcmerge.sets.model_sets import ModelSet
from dcmerge.vectors.cache import BUDGET, Memo

#: Merged task vectors, and the stages of single matrices: large, and soon had again.
MERGED, STAGES = Memo(most=6), Memo(most=16)
#: The open sets, by key.
OPEN: WeakValueDictionary[str, ModelSet] = WeakValueDictionary()
#: Less is not worth a line, in bytes.
_WORTH_A_LINE = 50 << 20
_ABOUT = (
    "Singular vectors, bases and merged models stay in memory, so that a moved slider computes little. The server keeps at most "
    "half of the memory that is free. What was not used for long leaves first, and is read from the cache on disk or computed "
    "when it is needed again. Whoever starts the server can set another bound: see Performance in the documentation."
)


def memory_line() -> None:
    """How much is held, for how many sets, and the bound; nothing where it is little."""
    held = BUDGET.held
    if held >= _WORTH_A_LINE:
        sets = sum(models.vectors.memo.held > 0 for models in OPEN.values())
        told = f" for {sets} set{'s' if sets > 1 else ''}" if sets else ""
        st.caption(f"Holds {_size(held)} of factors{told}, of at most {_size(BUDGET.limit())}", help=_ABOUT)


def _size(nbytes: int) -> str:
    """In units of 10⁹ bytes, as systems tell it."""
    gigabytes = nbytes / 1e9
    return f"{gigabytes:.1f} GB" if gigabytes < 2 else f"{gigabytes:.0f} GB"
