"""Where a parameter sits: its depth and its kind, read from its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

#: What the common names of weights mean, first match wins (open_clip, Hugging Face CLIP and language models).
_KINDS = (
    (r"in_proj_weight$", "attention q, k, v"),
    (r"q_proj\.weight$", "attention q"),
    (r"k_proj\.weight$", "attention k"),
    (r"v_proj\.weight$", "attention v"),
    (r"(out_proj|o_proj)\.weight$", "attention out"),
    (r"(c_fc|fc1|up_proj)\.weight$", "MLP in"),
    (r"gate_proj\.weight$", "MLP gate"),
    (r"(c_proj|fc2|down_proj)\.weight$", "MLP out"),
    (r"positional_embedding$|position_embedding\.weight$", "positions"),
    (r"token_embedding\.weight$|embed_tokens\.weight$", "tokens"),
    (r"(^|\.)proj$|projection\.weight$", "projection"),
)
OUTSIDE = "outside the blocks"
#: Where these stand, whatever the order in the file: safetensors sorts by name.
_BEFORE, _AFTER = ("positions", "tokens"), ("projection",)


@dataclass(frozen=True)
class Place:
    """``depth`` is the block's number, None outside the blocks; ``kind`` is the role within a block."""

    depth: int | None
    kind: str

    @property
    def label(self) -> str:
        return f"{self.kind}, block {self.depth}" if self.depth is not None else f"{self.kind} ({OUTSIDE})"


def place_of(name: str) -> Place:
    """The place of one parameter; an unknown name is its own kind."""
    number = re.search(r"\.(\d+)\.", name)
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, name)), None)
    if kind is None:
        kind = name[number.end() :] if number else name
    return Place(int(number[1]) if number else None, kind)


def by_depth(names: Iterable[str]) -> list[str]:
    """Names in the order of computation: before the blocks as they come, blocks by number, the rest after them."""
    names = list(names)
    first_block = next((i for i, name in enumerate(names) if place_of(name).depth is not None), len(names))
    order = {name: i for i, name in enumerate(names)}

    def rank(name: str) -> tuple[int, int, int]:
        place = place_of(name)
        if place.depth is not None:
            return 1, place.depth, order[name]
        comes_first = place.kind not in _AFTER and (order[name] < first_block or place.kind in _BEFORE)
        return (0 if comes_first else 2), 0, order[name]

    return sorted(names, key=rank)
