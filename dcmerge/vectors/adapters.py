"""Adapters of one set: made for one base, and of tensors that they hold whole, what can be done without the base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.vectors.fit import Fit

#: A base's folder in Hugging Face's download cache: models--owner--name/snapshots/hash.
_HUB_FOLDER = re.compile(r".*models--(?:.+--)?([^/]+)/snapshots/[^/]+")


def as_matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(m, n) of a convolution's weight (m, ...), whose delta is a matrix; every other shape as it is."""
    return (shape[0], prod(shape[1:])) if len(shape) > 2 else shape


def base_name_of(adapter: Checkpoint) -> str:
    """What an adapter's settings call its base, without the place that it lay at; empty where they say nothing."""
    settings = adapter.settings if isinstance(adapter, LoraCheckpoint) else None
    text = (settings.base_name if settings else "").replace("\\", "/").rstrip("/")
    cached = _HUB_FOLDER.fullmatch(text)
    return cached[1] if cached else text.rpartition("/")[2]


def check_bases(adapters: Mapping[str, Checkpoint], fit: Fit) -> None:
    """Raises InputError for adapters that were trained on different bases, unless that was confirmed, and of two dialects."""
    names = {task: name for task, one in adapters.items() if (name := base_name_of(one))}
    if len({name.lower() for name in names.values()}) > 1 and not fit.different_bases:
        told = ", ".join(f"{task} on {shown(name)}" for task, name in names.items())
        raise InputError(
            f"the adapters were trained on different bases ({told}), so their deltas belong to different weights, even where the "
            "shapes agree",
            "different_bases",
        )
    dialects = {one.dialect for one in adapters.values() if isinstance(one, LoraCheckpoint)}
    if len(dialects) > 1:
        told = ", ".join(f"{task}: {one.dialect}" for task, one in adapters.items() if isinstance(one, LoraCheckpoint))
        raise InputError(f"expected adapters whose files are of one dialect, got several ({told})")


def factors_alone(adapters: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Adapters without their whole tensors, whose change is known only beside a base; ``told`` says so."""
    found: dict[str, Checkpoint] = {}
    for task, one in adapters.items():
        found[task] = one
        if isinstance(one, LoraCheckpoint) and one.whole:
            twin = one.selected(one.adapted)
            names = ", ".join(shown(name) for name in list(one.whole)[:3])
            twin.notes += (
                f"{len(one.whole)} tensors were trained in full beside the factors ({names}); they are left out, as their change "
                "is known only beside the base",
            )
            found[task] = twin
    return found
