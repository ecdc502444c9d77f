"""Work on other machines: each process there opens the models once, and keeps them for what comes next."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from dcmerge.evaluation import Bench

#: Opens the models on the machine on which it is called; it pickles, and equal ones pickle alike.
Opener = Callable[[], Bench]
_OPENED: dict[bytes, Bench] = {}


def opened(opener: Opener) -> Bench:
    """The bench of this process; of an earlier opener it is let go."""
    key = pickle.dumps(opener)
    if key not in _OPENED:
        _OPENED.clear()
        _OPENED[key] = opener()
    return _OPENED[key]
