"""What a damage map looks at: which parts of the model are put back, to what, and on how many images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dcmerge.errors import InputError
from dcmerge.methods import Method, method
from dcmerge.studies.damage.found import BASE, CHANGES, EXPERT
from dcmerge.vectors.naming import by_depth, place_of
from dcmerge.vectors.task_vectors import TaskVectors

MATRICES, BLOCKS = "matrices", "blocks"
#: A part's name -> the names of its parameters, in the order of computation.
Units = Mapping[str, tuple[str, ...]]
#: How parts outside the blocks are called, with ``by`` blocks.
_BEFORE, _AFTER = "before the blocks", "after the blocks"
LIMIT = 100


@dataclass(frozen=True)
class Plan:
    """One damage map. ``limit``: validation images a task; None for all. ``by``: matrices or blocks."""

    slug: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[str, ...] = (EXPERT, BASE)
    by: str = MATRICES
    limit: int | None = LIMIT

    @classmethod
    def of(
        cls,
        slug: str,
        parameters: Mapping[str, Any] | None = None,
        changes: Iterable[str] = (EXPERT, BASE),
        by: str = MATRICES,
        limit: int | None = LIMIT,
    ) -> Plan:
        """Raises InputError for what no map could be made of."""
        chosen, wanted = method(slug), tuple(dict.fromkeys(changes))
        if unknown := [name for name in wanted if name not in CHANGES]:
            raise InputError(f"changes: expected some of {', '.join(CHANGES)}, got {', '.join(map(repr, unknown))}")
        if not wanted:
            raise InputError(f"changes: expected at least one of {', '.join(CHANGES)}, got none")
        if by not in (MATRICES, BLOCKS):
            raise InputError(f"by: expected {MATRICES} or {BLOCKS}, got {by!r}")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 2):
            raise InputError(f"limit: expected at least 2 images a task or none for all, got {limit!r}")
        if not chosen.gives_one_model:
            raise InputError(f"{slug}: expected a method that gives one model of the base's layout, got one that does not")
        return cls(slug, chosen.check(parameters or {}), wanted, by, limit)

    @property
    def method(self) -> Method:
        return method(self.slug)


def units_of(vectors: TaskVectors, by: str) -> dict[str, tuple[str, ...]]:
    """The parts of these models: every matrix by itself, or every block with all that is merged in it.

    With ``by`` matrices biases, norms and embeddings of one dimension are no part: there are many, and each does little.
    """
    names = by_depth(vectors.parameters)
    if by == MATRICES:
        return {name: (name,) for name in names if len(vectors.parameters[name].shape) >= 2}
    parts: dict[str, tuple[str, ...]] = {}
    for name in names:
        depth = place_of(name).depth
        outside = _AFTER if any(part not in (_BEFORE, _AFTER) for part in parts) else _BEFORE
        part = outside if depth is None else f"block {depth}"
        parts[part] = (*parts.get(part, ()), name)
    return parts
