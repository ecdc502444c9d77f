"""Passes of an image tower that begin at a block: what comes before it is the same in many models, and is computed once.

For towers whose blocks follow one another in ``transformer.resblocks``, as in open_clip's vision transformers. Before anything is
kept, one batch passes the tower both ways: where the features are not the same bits, every pass is a whole one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dcmerge.errors import Cancelled
from dcmerge.evaluation.encoders import ImageEncoder
from dcmerge.runtime.threads import compute_device

IsCancelled = Callable[[], bool]
#: Bytes of tokens that are kept at a time, of all images together.
KEPT_BYTES = 1 << 30
_BLOCK = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.")
#: How the names of what comes after the last block begin.
_AFTER = ("visual.ln_post.", "visual.proj", "visual.attn_pool")


def blocks_of(encoder: ImageEncoder) -> nn.ModuleList | None:
    """The tower's blocks in order; None of a tower that has none such."""
    found = getattr(getattr(encoder.visual, "transformer", None), "resblocks", None)
    return found if isinstance(found, nn.ModuleList) and len(found) else None


def first_block(encoder: ImageEncoder, names: Iterable[str]) -> int:
    """The first block whose input may be other where these weights are (names as the encoder has them).

    0 where the images are embedded otherwise, or the tower has no such blocks; the number of blocks for what comes after all.
    """
    blocks = blocks_of(encoder)
    if blocks is None:
        return 0
    found = [int(match[1]) if (match := _BLOCK.match(name)) else len(blocks) * name.startswith(_AFTER) for name in names]
    return min(found, default=len(blocks))


def share_of_pass(encoder: ImageEncoder, names: Iterable[str]) -> float:
    """About how much of a pass is left to do where these weights are other ones."""
    blocks = blocks_of(encoder)
    return 1.0 if blocks is None else 1 - first_block(encoder, names) / len(blocks)


def changed(weights: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> list[str]:
    """The names whose values are others than before."""
    return [name for name, value in weights.items() if value is not before[name] and not torch.equal(value, before[name])]


@dataclass(eq=False)
class Proof:
    """Whether a tower gives the same features from its kept tokens; None before it was tried. Images of one tower share it."""

    holds: bool | None = None


@dataclass(eq=False)
class KeptTokens:
    """Images on their way through the tower with ``weights``, the tokens of each batch kept at the input of ``block``.

    Models that differ from ``weights`` only from a block on begin there. Asked for blocks in ascending order, it computes each
    block once; for one before those that it has passed, the pass is a whole one. ``images``: uint8 (N, 3, H, W). ``most``:
    bytes that the tokens may have; where they have more, every pass is whole.
    """

    encoder: ImageEncoder
    weights: Mapping[str, Tensor] = field(repr=False)
    images: Tensor = field(repr=False)
    most: int = KEPT_BYTES
    proof: Proof = field(default_factory=Proof, repr=False)
    block: int = 0
    tokens: Sequence[Tensor] = field(default=(), repr=False)
    refused: bool = False

    @torch.inference_mode()
    def features(self, weights: Mapping[str, Tensor], start: int, cancelled: IsCancelled | None = None) -> Tensor:
        """What ``encode`` returns of a model that is ``weights`` up to the input of block ``start``: (N, d). Raises Cancelled."""
        if start < 1 or not self._reached(start, cancelled):
            return self.encoder.encode(weights, self.images, cancelled=cancelled)
        self.encoder.check(weights)
        found = [self._pass(weights, tokens, start).cpu() for tokens in _until(self.tokens, cancelled)]
        return nn.functional.normalize(torch.cat(found), dim=-1)

    def _reached(self, start: int, cancelled: IsCancelled | None) -> bool:
        """Whether the tokens at the input of that block are there; they are brought there where that can be."""
        if self.refused or start < self.block or blocks_of(self.encoder) is None:
            return False
        if start == self.block:
            return True
        found: list[Tensor] = []
        for batch in _until(self.tokens or self.images.split(self.encoder.batch_size), cancelled):
            found.append(self._pass(self.weights, batch, self.block, start))
            if not self.block and len(found) == 1 and not self._holds(batch, found[0], start):
                self.refused = True
                return False
        self.tokens, self.block = found, start
        return True

    def _holds(self, batch: Tensor, tokens: Tensor, start: int) -> bool:
        """Whether there is room for the tokens of all images, and the tower gives the same features from there on."""
        if tokens.nbytes * len(self.images) > self.most * len(batch):
            return False
        if self.proof.holds is None:
            whole = self.encoder.forward(self.encoder.placed(self.weights), batch)
            self.proof.holds = torch.equal(self._pass(self.weights, tokens, start), whole)
        return self.proof.holds

    def _pass(self, weights: Mapping[str, Tensor], given: Tensor, first: int, last: int | None = None) -> Tensor:
        """What the blocks from ``first`` on make of tokens, or from 0 on of images: tokens at block ``last``, or embeddings."""
        blocks = blocks_of(self.encoder)
        assert blocks is not None
        before, taken = [_Skip()] * (first - 1) + ([_Given(given)] if first else []), _Take()
        tower = _with_blocks(self.encoder.visual, [*before, *blocks[first:last], *([] if last is None else [taken])])
        own = {name: weights[f"visual.{name}"].float().to(compute_device()) for name in tower.state_dict()}
        # Of tokens nothing is embedded: one image goes through what embeds them, and what comes out is put aside.
        images = self.images[:1] if first else given
        with self.encoder.turn():
            found = functional_call(tower, own, (self.encoder.pixels(images.to(compute_device())),))
        return found if last is None else taken.tokens


def _until(batches: Sequence[Tensor], cancelled: IsCancelled | None) -> Iterable[Tensor]:
    for batch in batches:
        if cancelled and cancelled():
            raise Cancelled
        yield batch


def _with_blocks(visual: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
    """The tower with other blocks; all else is shared, so it must not run while the tower itself does."""
    transformer = _with(visual.get_submodule("transformer"), resblocks=nn.ModuleList(blocks))
    return _with(visual, transformer=transformer)


def _with(module: nn.Module, **others: nn.Module) -> nn.Module:
    """A shallow copy with other submodules."""
    found = copy.copy(module)
    found._modules = {**module._modules, **others}
    return found


class _Skip(nn.Module):
    """In the place of a block whose work is done."""

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        return x


class _Given(nn.Module):
    """Hands out the tokens that are kept, whatever comes."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.kept = tokens

    def forward(self, *_: object, **__: object) -> Tensor:
        return self.kept


class _Take(_Skip):
    """Holds the tokens that pass it."""

    tokens: Tensor

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        self.tokens = x
        return x
