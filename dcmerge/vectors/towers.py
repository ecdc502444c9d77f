"""Experts that are the image tower of a wider base: CLIP's image encoder beside the whole CLIP."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

#: How models call their image tower. Other parts (a language model without its head) are no tower but an incomplete model.
_TOWERS = ("visual", "vision_model", "vision_tower", "vision_encoder", "image_encoder")
#: open_clip's names. Task arithmetic's image encoders are a CLIP without the text tower's blocks.
_TEXT_BLOCKS, _IMAGE_TOWER = "transformer.", "visual."


@dataclass(frozen=True)
class Tower:
    """What the experts hold, in words, and the names of the base's parameters outside of it."""

    title: str
    outside: tuple[str, ...]


def tower_of(names: Sequence[str], experts: Sequence[Collection[str]]) -> Tower | None:
    """The tower of the base that every expert is, whole; None where they are as wide as the base or lack something of it.

    A tower is everything below one prefix that ends in a name of ``_TOWERS``. Beside it, open_clip's CLIP without the text
    tower's blocks counts.

    Args:
        names: the base's parameters.
        experts: the names that each expert holds.
    """
    own = [{name for name in names if name in expert} for expert in experts]
    if not own or not own[0] or any(held != own[0] for held in own):
        return None
    outside = tuple(name for name in names if name not in own[0])
    if not outside:
        return None
    prefix = _tower_prefix(own[0])
    if prefix and not any(name.startswith(prefix) for name in outside):
        return Tower(f"{prefix}*", outside)
    has_images = any(name.startswith(_IMAGE_TOWER) for name in own[0])
    if has_images and set(outside) == {name for name in names if name.startswith(_TEXT_BLOCKS)}:
        return Tower("all but the text tower's blocks", outside)
    return None


def _tower_prefix(names: Collection[str]) -> str:
    """What all names start with, up to the name of a tower; "" where there is none."""
    parts = next(iter(names)).split(".")
    places = [place for place, part in enumerate(parts) if part in _TOWERS]
    prefix = "".join(f"{part}." for part in parts[: places[0] + 1]) if places else ""
    return prefix if all(name.startswith(prefix) for name in names) else ""
