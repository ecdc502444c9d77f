"""What is kept of every merge: at each α the normalised accuracies and the measures, by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dcmerge.studies.tells.plan import Setting


@dataclass(frozen=True)
class Row:
    """One merge at one α. ``accuracy``: normalised, by task. ``measures``: by measure and task, as they are measured."""

    factor: float
    alpha: float
    accuracy: Mapping[str, float] = field(repr=False)
    measures: Mapping[str, Mapping[str, float]] = field(repr=False)


@dataclass(frozen=True)
class Look:
    """One finished merge; ``error`` says why it has no rows."""

    setting: Setting
    rows: tuple[Row, ...] = field(default=(), repr=False)
    error: str = ""
    seconds: float = 0.0
