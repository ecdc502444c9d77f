"""Where a parameter sits: its depth and its kind, read from its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

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
#: The number of a block: open_clip's resblocks.3., Hugging Face's layers.3., GPT-2's h.3.; the first number of a name counts.
_BLOCK = re.compile(r"\.(\d+)\.")
#: The number of an expert within a block of a mixture.
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
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
    number = _BLOCK.search(name)
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, name)), None)
    if kind is None:
        kind = name[number.end() :] if number else name
    expert = _EXPERT.search(name)
    return Place(int(number[1]) if number else None, f"{kind}, expert {expert[1]}" if expert else kind)


class Depth(NamedTuple):
    """A block among the blocks of its stack: ``block`` counts from 0 to ``blocks`` - 1."""

    block: int
    blocks: int

    @property
    def share(self) -> float:
        """0 in the first block, 1 in the last; 0 where there is only one."""
        return self.block / (self.blocks - 1) if self.blocks > 1 else 0.0


def stacks_of(names: Iterable[str]) -> dict[str, int]:
    """How many blocks every stack of a model has, by what stands before the block's number ("visual.transformer.resblocks").

    A model with an image and a text tower has two stacks. Of blocks that no name tells (adapters of the last ones, say), those
    before the highest number count.
    """
    counts: dict[str, int] = {}
    for name in names:
        if number := _BLOCK.search(name):
            stack = name[: number.start()]
            counts[stack] = max(counts.get(stack, 0), int(number[1]) + 1)
    return counts


def depth_of(name: str, stacks: Mapping[str, int]) -> Depth | None:
    """Where a parameter stands among the blocks of its stack (see ``stacks_of``); None outside the blocks."""
    number = _BLOCK.search(name)
    return Depth(int(number[1]), stacks[name[: number.start()]]) if number else None


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
