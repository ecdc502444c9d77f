"""Factors of packed experts on their way into an adapter: PEFT keeps those of all experts of a parameter in one pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dcmerge.checkpoints import Adapted, LowRank, OfExpert, total
from dcmerge.vectors.layers import layer_of
from dcmerge.vectors.task_vectors import Delta, TaskVectors


@dataclass(frozen=True)
class Whole:
    """A delta of one module, or of one expert of it, and the most directions that it can have."""

    name: str
    place: Adapted
    delta: Delta
    bound: int


def joined(vectors: TaskVectors, at: Mapping[str, Adapted], deltas: Iterable[tuple[str, Delta]]) -> Iterator[Whole]:
    """Deltas of adapted weights as they come, but gate and up of an expert as the one matrix that PEFT adapts.

    Of an expert of which only one of the two is merged, the other half is zero.
    """
    halves: dict[tuple[str, int], list[Whole]] = {}
    for name, delta in deltas:
        place, bound = at[name], layer_of(vectors, name).joint_rank()
        if not isinstance(place, OfExpert) or place.part.count == _size(vectors, name, place):
            yield Whole(name, place, delta, bound)
            continue
        key = place.module, place.part.expert or 0
        waiting = halves.setdefault(key, [])
        waiting.append(Whole(name, place, placed(delta, place, _size(vectors, name, place)), bound))
        if len(waiting) == 2:
            yield _sum(halves.pop(key))
    for waiting in halves.values():
        yield _sum(waiting)


def _size(vectors: TaskVectors, name: str, place: OfExpert) -> int:
    """How many rows (or columns) an expert's whole matrix has along the axis on which gate and up lie."""
    owner = next(adapter for adapter in vectors.adapters if name in adapter.adapted)
    return owner.expert_shape(name)[place.part.axis]


def _sum(halves: list[Whole]) -> Whole:
    first, delta = halves[0], total([half.delta for half in halves])
    return Whole(first.name, first.place, delta, min(*delta.shape, sum(half.bound for half in halves)))


def placed(delta: Delta, place: OfExpert, size: int) -> Delta:
    """A half at its place in a matrix of zeros, with ``size`` rows or columns."""
    axis, index = place.part.axis, place.part.index
    if not isinstance(delta, LowRank):
        shape = list(delta.shape)
        shape[axis] = size
        whole = delta.new_zeros(shape)
        whole[index] = delta
        return whole
    left, right = delta.left, delta.right
    if axis == 0:
        left = left.new_zeros(size, delta.rank)
        left[index[-1]] = delta.left
    else:
        right = right.new_zeros(delta.rank, size)
        right[:, index[-1]] = delta.right
    return LowRank(left, right)


@dataclass
class Packing:
    """The experts' factors of every parameter, until all of one have come."""

    waiting: dict[str, dict[int, LowRank]] = field(default_factory=dict)
    places: dict[str, OfExpert] = field(default_factory=dict)

    def add(self, place: OfExpert, factors: LowRank) -> Iterator[tuple[OfExpert, Tensor, Tensor]]:
        """A parameter's A (E r, n) and B (m, r E) as soon as its last expert has come."""
        own = self.waiting.setdefault(place.module, {})
        self.places[place.module] = place
        own[place.part.expert or 0] = factors
        if len(own) == place.experts:
            yield self._packed(place.module)

    def rest(self) -> Iterator[tuple[OfExpert, Tensor, Tensor]]:
        """Parameters of which only some experts are merged; the others count as unchanged."""
        for module in list(self.waiting):
            yield self._packed(module)

    def _packed(self, module: str) -> tuple[OfExpert, Tensor, Tensor]:
        own, place = self.waiting.pop(module), self.places[module]
        rank, shape = max(one.rank for one in own.values()), next(iter(own.values())).shape
        every = [own.get(expert, LowRank.zeros(shape)).padded(max(rank, 1)) for expert in range(place.experts)]
        pairs = [(one.left.T, one.right.T) if place.turned else (one.right, one.left) for one in every]
        return place, torch.cat([a for a, _ in pairs]), torch.stack([b for _, b in pairs], dim=2).flatten(1)
