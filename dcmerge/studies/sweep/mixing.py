"""The mixer in a sweep: the weight of an expert (``weight.NAME``), and both ends of α's profile over depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dcmerge.errors import InputError
from dcmerge.methods.declare import Number
from dcmerge.vectors.mix import LARGEST, Mix

WEIGHT, FIRST, LAST = "weight.", "depth.first", "depth.last"
#: What a weight, or a factor on α, may be, and where it is usually looked for.
FACTOR = Number("Weight", "What an expert counts.", -LARGEST, LARGEST, 0.05, soft_low=0, soft_high=2)


def is_mix(name: str) -> bool:
    """Whether an axis is one of the mixer's."""
    return name in (FIRST, LAST) or (name.startswith(WEIGHT) and len(name) > len(WEIGHT))


def mix_of(fixed: Mix, cell: Mapping[str, Any]) -> Mix:
    """The mix of a point: what is fixed, with the weights and the ends of the profile that its values name."""
    weights = {name.removeprefix(WEIGHT): value for name, value in cell.items() if name.startswith(WEIGHT)}
    depth = fixed.depth
    if FIRST in cell or LAST in cell:
        depth = (cell.get(FIRST, depth[0]), cell.get(LAST, depth[-1]))
    return Mix.of({**fixed.weights, **weights}, fixed.depths, depth)


def without(mix: Mix, swept: set[str]) -> Mix:
    """The mix without what is varied."""
    weights = {name: value for name, value in mix.weights.items() if f"{WEIGHT}{name}" not in swept}
    return replace(mix, weights=weights)


def check_mix(mix: Mix, swept: set[str]) -> None:
    """Raises InputError where something of the mix is both set and varied."""
    if twice := sorted(swept & {f"{WEIGHT}{name}" for name in mix.weights}):
        raise InputError(f"over: expected weights that are not set, got {', '.join(twice)}, which is set as well")
    if swept & {FIRST, LAST} and len(mix.depth) > 2:
        raise InputError(f"over: expected a constant or linear profile of α, got {len(mix.depth)} blocks of it as well")
