"""The usual α of methods that sum the task vectors of adapters, by how many there are."""

from __future__ import annotations

import math
from collections.abc import Callable

#: Scales are multiples of it, as on the page's slider.
_STEP = 0.05


def scale_for_length(tasks: int, lengths: float, low: float = 0.0, high: float = math.inf) -> float:
    """α with which T nearly orthogonal task vectors of one length add up to ``lengths`` of them: lengths/√T, rounded to 0.05.

    Two is the least T that counts: a single expert needs no such shortening. ``low`` and ``high`` bound the result.
    """
    return min(high, max(low, round(lengths / math.sqrt(max(2, tasks)) / _STEP) * _STEP))


def falling_for_adapters(lengths: float) -> Callable[..., float]:
    """1 for fully fine-tuned experts, and ``scale_for_length``, at most 1, for adapters."""

    def usual_scale_of(kind: str, tasks: int, **_: object) -> float:
        return scale_for_length(tasks, lengths, high=1.0) if kind == "lora" else 1.0

    return usual_scale_of
