"""How much memory a merge needs at most, from the shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterable

from dcmerge.vectors.cache import MEMO_BYTES
from dcmerge.vectors.compatibility import Kind, Parameter

#: Python, torch and its buffers, in bytes, before anything is read.
_PROCESS_BYTES = 600 << 20
#: Two matrices are decomposed at a time, each with three float64 copies.
_COPIES = 2 * 3


def predicted_peak_bytes(parameters: Iterable[Parameter], tasks: int) -> int:
    """About how much memory a merge by singular vectors into a file needs at most: it never holds more than one stack.

    The largest parameter's T deltas in float32 with the float64 copies of two of them, and the remembered factors and bases
    (r = floor(min(m, n) / T)) up to the memory's limit.
    """
    largest, remembered = 0, 0
    for parameter in parameters:
        entries, stack = math.prod(parameter.shape), 4 * tasks * math.prod(parameter.shape)
        largest = max(largest, stack + 2 * 4 * entries + _COPIES * 8 * entries)
        if parameter.kind is Kind.MATRIX:
            r, sides = min(parameter.shape) // tasks, sum(parameter.shape)
            remembered += 4 * (2 * tasks * r * sides + 2 * tasks * tasks * r * r)
    return _PROCESS_BYTES + largest + min(remembered, MEMO_BYTES)
