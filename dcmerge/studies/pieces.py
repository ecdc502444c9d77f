"""A study that looks at one parameter after another and keeps a few numbers of each, so that it can be shown while it grows.

What is found is kept in the cache on disk, under the state of the set's files: who opens the same set again reads it back
without reading a weight. A part of it is kept too, and is where the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from dcmerge.errors import Cancelled
from dcmerge.spectral.linalg import NUMERICS
from dcmerge.vectors.cache import content_key
from dcmerge.vectors.task_vectors import TaskVectors

Whole = TypeVar("Whole")
#: The numbers of one parameter, by name.
Piece = Mapping[str, Tensor]
#: Raised whenever a study finds other numbers than before: what is kept under another one is not read.
FORM = 1
_BETWEEN = " | "


def stacked(found: Mapping[str, Piece], names: Sequence[str], part: str, unknown: Tensor) -> Tensor:
    """One of the numbers of every piece, (len(names), *unknown.shape); ``unknown`` in the place of one that is not found yet."""
    return torch.stack([found[name][part] if name in found else unknown for name in names] or [unknown])[: len(names)]


@dataclass(frozen=True, eq=False)
class Pieces(Generic[Whole]):
    """A study of ``names``, parameters of one set, in this order.

    ``what``: the study with its settings, in words. ``look``: the numbers of one parameter. ``together``: the whole study of the
    pieces by name; of some of them where ``grows``, with NaN for the others. ``prepare``: what comes before the first look, and
    ends when what it is given turns true. ``kept``: whether files and ``what`` say all that decides the numbers.
    """

    what: str
    vectors: TaskVectors
    names: tuple[str, ...]
    look: Callable[[str], Piece] = field(repr=False)
    together: Callable[[Mapping[str, Piece]], Whole] = field(repr=False)
    grows: bool = True
    prepare: Callable[[Callable[[], bool]], None] = field(default=lambda cancelled: None, repr=False)
    kept: bool = True

    @property
    def entries(self) -> int:
        """How many numbers of all experts are looked at: what the work grows with."""
        return len(self.vectors.tasks) * sum(self.vectors.parameters[name].numel for name in self.names)

    def whole(
        self,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Whole:
        """The study, from its beginning to its end. Raises Cancelled when ``cancelled()`` turns true."""
        self.prepare(cancelled or (lambda: False))
        found: dict[str, Piece] = {}
        for done, name in enumerate(self.names):
            if cancelled and cancelled():
                raise Cancelled
            if progress:
                progress(done / len(self.names), name)
            found[name] = self.look(name)
        return self.together(found)

    def load(self) -> dict[str, Piece]:
        """The pieces that the cache on disk has; empty where it has none, or is off."""
        store = self.vectors.store
        stored = store.load(self._key()) if store and self.kept else None
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in (stored or {}).items():
            name, _, part = key.rpartition(_BETWEEN)
            if name in self.names:
                found.setdefault(name, {})[part] = value
        return dict(found)

    def save(self, found: Mapping[str, Piece]) -> None:
        """Keep what was found in the cache on disk."""
        if self.vectors.store and self.kept and found:
            tensors = {
                f"{name}{_BETWEEN}{part}": value.contiguous() for name, piece in found.items() for part, value in piece.items()
            }
            self.vectors.store.save(self._key(), tensors)

    def _key(self) -> str:
        return content_key([f"study {FORM}", f"numerics {NUMERICS}", self.what, self.vectors.state], ())
