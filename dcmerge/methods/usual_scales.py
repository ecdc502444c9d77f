"""The usual α of methods that sum task vectors, by how many there are.

T nearly orthogonal task vectors of one length add up to √T of it. The papers' α were chosen for eight fully fine-tuned experts.
Measured on validation images of the demo, with two, three, four and eight of its experts and of its adapters.
"""

from __future__ import annotations

import math
from collections.abc import Callable

#: How many experts the papers merge.
PUBLISHED_TASKS = 8
#: Scales are multiples of it, as on the page's slider.
_STEP = 0.05


def scale_for_length(tasks: int, lengths: float, low: float = 0.0, high: float = math.inf) -> float:
    """α with which T nearly orthogonal task vectors of one length add up to ``lengths`` of them: lengths/√T, rounded to 0.05.

    A single expert counts as two. ``low`` and ``high`` bound the result.
    """
    return min(high, max(low, round(lengths / math.sqrt(max(2, tasks)) / _STEP) * _STEP))


def as_long_as_of_eight(tasks: int, scale: float) -> float:
    """α with which fewer experts add up to the length that eight have at ``scale``: scale · √(8/T); of more it stays ``scale``.

    At 0.3 two of the demo's experts are 13 points below what they reach at 0.6, by Task Arithmetic, and four 3 points below 0.4.
    """
    return scale_for_length(tasks, scale * math.sqrt(PUBLISHED_TASKS), low=scale)


def growing_for_few(scale: float) -> Callable[..., float]:
    """``as_long_as_of_eight`` as a method's ``usual_scale_of``."""

    def usual_scale_of(kind: str, tasks: int, **_: object) -> float:
        return as_long_as_of_eight(tasks, scale)

    return usual_scale_of


def falling_for_adapters(lengths: float) -> Callable[..., float]:
    """1 for fully fine-tuned experts, and ``scale_for_length``, at most 1, for adapters."""

    def usual_scale_of(kind: str, tasks: int, **_: object) -> float:
        return scale_for_length(tasks, lengths, high=1.0) if kind == "lora" else 1.0

    return usual_scale_of
