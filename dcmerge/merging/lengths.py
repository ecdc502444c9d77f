"""How long a merged task vector is beside the experts' own: what tells that a scale does not fit what a method returns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from dcmerge.errors import WARNING
from dcmerge.spectral.linalg import frobenius_norm
from dcmerge.vectors.task_vectors import Delta, TaskVectors

#: A step from the base that is so many times as long as the longest expert's leaves what fine-tuning ever saw.
LONG = 3.0
#: How the origin of an α begins that was chosen on validation images.
VALIDATED = "validation"


class Length:
    """The norm of a merged task vector before α, counted while its deltas pass by."""

    def __init__(self) -> None:
        self._square = 0.0

    def counted(self, deltas: Iterable[tuple[str, Delta]]) -> Iterator[tuple[str, Delta]]:
        """The same deltas, one at a time."""
        for name, delta in deltas:
            self.add(frobenius_norm(delta) ** 2)
            yield name, delta

    def add(self, square: float) -> None:
        """The square of the norm of one more delta, or of a part of one."""
        self._square += square

    @property
    def norm(self) -> float:
        return math.sqrt(self._square)

    def notes(self, vectors: TaskVectors, scale: float, origin: str | None = None) -> tuple[str, ...]:
        """A warning where α · merged is more than LONG times as long as the longest expert's task vector.

        None where ``origin`` tells that α was chosen on validation: what was seen to work needs no warning.
        """
        if origin is not None and origin.startswith(VALIDATED):
            return ()
        longest = max((vectors.report.delta_norms.get(task, 0.0) for task in vectors.tasks), default=0.0)
        ratio = abs(scale) * self.norm / longest if longest else 0.0
        if ratio <= LONG:
            return ()
        bound = LONG * abs(scale) / ratio
        return (
            f"{WARNING}α = {scale:g} makes the merged task vector {ratio:.1f} times as long as the longest expert's, and no "
            f"expert went so far from the base. Choose α on validation images, or try one below {bound:.2g}",
        )
