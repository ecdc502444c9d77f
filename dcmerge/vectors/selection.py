"""The entries of deltas by their rank among the magnitudes: found by counting, without sorting and without holding a model.

A float32 magnitude is 31 bits that sort as it does. Two passes that count find the one of any rank exactly: first by the upper
half of the bits, then within one bin by the lower half. A third finds, of the entries that are equal to it, those that still
count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dcmerge.checkpoints import dense
from dcmerge.vectors.layers import Layer, over_parts

_LOWER_BITS = 16
_UPPER, _LOWER = 1 << 15, 1 << _LOWER_BITS


@dataclass(frozen=True)
class Cut:
    """The largest entries of one delta: those above ``magnitude``, and of those equal to it the ones before the place ``end``.

    Places count the entries of the whole parameter, row by row: of equal magnitudes the first ones are the larger.
    """

    magnitude: float
    end: int

    def kept(self, delta: Tensor, first: int) -> Tensor:
        """Which entries of (a part of) the delta are among them, bool (*shape); the part begins at the place ``first``."""
        sizes, whole = delta.abs(), self.end - first
        if whole >= delta.numel():
            return sizes >= self.magnitude
        found = sizes > self.magnitude
        if whole > 0:
            found.view(-1)[:whole] = sizes.view(-1)[:whole] >= self.magnitude
        return found


NONE = Cut(math.inf, 0)


def cuts(layers: Sequence[Layer], counts: Callable[[int], Sequence[int]]) -> dict[str, list[list[Cut]]]:
    """Where to cut so that so many of the largest entries of each delta stay: name -> for every task a cut for each count.

    ``counts`` of a parameter's number of entries. Every parameter is ranked by itself; one part of it is in memory at a time.
    """
    wanted = {layer.name: [min(int(n), layer.parameter.numel) for n in counts(layer.parameter.numel)] for layer in layers}
    if layers and layers[0].dtype != torch.float32:
        return {layer.name: _sorted_cuts(layer, wanted[layer.name]) for layer in layers}
    ranked = _ranked(layers, wanted)
    split = [layer for layer in layers if bool(ranked[layer.name].splits_equals.any())]
    for layer, parts in over_parts(split, lambda part: _equals(part, ranked[part.name].magnitudes)):
        ranked[layer.name].ends[:] = _ends(layer, torch.stack(list(parts)), ranked[layer.name])
    return {
        name: [
            [Cut(size, end) if n else NONE for size, end, n in zip(sizes, ends, wanted[name], strict=True)]
            for sizes, ends in zip(one.magnitudes.tolist(), one.ends.tolist(), strict=True)
        ]
        for name, one in ranked.items()
    }


def magnitudes(layers: Sequence[Layer], task: str) -> Tensor:
    """|D_t| of several parameters in one vector, (d,)."""
    return torch.cat([layer.dense_delta(task).abs().flatten() for layer in layers])


def magnitudes_at(layers: Sequence[Layer], place: int) -> Tensor:
    """The ``place``-th smallest (from 1) of |D_t| of several parameters together, for every task, (T,), exactly."""
    if layers[0].dtype != torch.float32:
        return torch.stack([magnitudes(layers, task).kthvalue(place).values for task in layers[0].tasks])
    upper = sum((part for _, parts in over_parts(layers, _upper_counts) for part in parts), torch.zeros(()))
    inside, left = _bins(upper, torch.full((len(upper), 1), place))
    lower = _total(layers, lambda part: _lower_counts(part, inside))
    found, _ = _bins(lower.flatten(0, 1), left.flatten()[:, None])
    return _as_magnitudes(inside, found.reshape(inside.shape)).flatten()


@dataclass(frozen=True)
class _Ranked:
    """The magnitudes at T x c ranks of one parameter; of how many equal entries how many count; and before which place."""

    magnitudes: Tensor
    equal: Tensor
    equal_kept: Tensor
    ends: Tensor

    @property
    def splits_equals(self) -> Tensor:
        return (self.equal_kept > 0) & (self.equal_kept < self.equal)


def _ranked(layers: Sequence[Layer], wanted: Mapping[str, Sequence[int]]) -> dict[str, _Ranked]:
    inside, left = {}, {}
    for layer, parts in over_parts(layers, _upper_counts):
        places = torch.tensor([[layer.parameter.numel - n + 1 for n in wanted[layer.name]]] * len(layer.tasks))
        inside[layer.name], left[layer.name] = _bins(sum(parts, torch.zeros(())), places)
    found = {}
    for layer, parts in over_parts(layers, lambda part: _lower_counts(part, inside[part.name])):
        own, lower = inside[layer.name], sum(parts, torch.zeros(()))
        bins, rest = _bins(lower.flatten(0, 1), left[layer.name].reshape(-1, 1))
        equal = lower.flatten(0, 1).gather(1, bins).long().reshape(own.shape)
        # Of the equal ones, rest - 1 lie below the place: those that are left count, the first ones of them.
        kept, ends = equal - rest.reshape(own.shape).long() + 1, torch.full_like(own, layer.parameter.numel)
        found[layer.name] = _Ranked(_as_magnitudes(own, bins.reshape(own.shape)), equal, kept, ends)
    return found


def _equals(part: Layer, values: Tensor) -> Tensor:
    """How many entries of each delta equal each of its magnitudes (T, c)."""
    sizes = _sizes(part)
    return torch.stack(
        [torch.stack([torch.count_nonzero(size == v) for v in own]) for size, own in zip(sizes, values, strict=True)]
    )


def _ends(layer: Layer, equals: Tensor, ranked: _Ranked) -> Tensor:
    """The places before which entries equal to a magnitude count, (T, c), from how many are in each part, (parts, T, c)."""
    ends, parts = ranked.ends.clone(), layer.parts()
    for task, c in ranked.splits_equals.nonzero().tolist():
        count, so_far = ranked.equal_kept[task, c], equals[:, task, c].cumsum(0)
        place = int(torch.searchsorted(so_far, count))
        part, before = parts[place], so_far[place] - equals[place, task, c]
        among = torch.nonzero(_sizes(part)[task].view(-1) == ranked.magnitudes[task, c]).flatten()
        ends[task, c] = part.first + among[count - before - 1] + 1
    return ends


def _sorted_cuts(layer: Layer, counts: Sequence[int]) -> list[list[Cut]]:
    """The same for another dtype than float32, by sorting; one delta in memory at a time."""
    found = []
    for delta in layer.deltas():
        sizes, order = dense(delta).abs().flatten().sort(descending=True, stable=True)
        found.append([Cut(sizes[n - 1].item(), int(order[n - 1]) + 1) if n else NONE for n in counts])
    return found


def _sizes(part: Layer) -> list[Tensor]:
    return [dense(delta).contiguous().abs_() for delta in part.deltas()]


def _upper_counts(part: Layer) -> Tensor:
    """How many entries of each delta have each upper half of the bits, (T, _UPPER)."""
    bits = (size.view(-1).view(torch.int32) >> _LOWER_BITS for size in _sizes(part))
    return torch.stack([torch.bincount(each, minlength=_UPPER) for each in bits])


def _lower_counts(part: Layer, inside: Tensor) -> Tensor:
    """Of the entries whose upper bits are ``inside`` (T, c), how many have each lower half, (T, c, _LOWER)."""
    found = []
    for size, bins in zip(_sizes(part), inside.tolist(), strict=True):
        bits = size.view(-1).view(torch.int32)
        upper = bits >> _LOWER_BITS
        own = [torch.bincount(bits[upper == one] & (_LOWER - 1), minlength=_LOWER) for one in bins]
        found.append(torch.stack(own))
    return torch.stack(found)


def _bins(counts: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The bin of counts (n, bins) in which each place (n, c; from 1) falls, and the place within it; both (n, c)."""
    ends = counts.cumsum(dim=1)
    inside = torch.searchsorted(ends, places.clamp(max=ends[:, -1:]))
    return inside, places - (ends - counts).gather(1, inside)


def _total(layers: Sequence[Layer], look: Callable[[Layer], Tensor]) -> Tensor:
    return sum((found for _, parts in over_parts(layers, look) for found in parts), torch.zeros(()))


def _as_magnitudes(upper: Tensor, lower: Tensor) -> Tensor:
    return ((upper << _LOWER_BITS) + lower).to(torch.int32).view(torch.float32)
