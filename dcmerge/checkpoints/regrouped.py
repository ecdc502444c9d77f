"""A checkpoint seen with q, k and v as the other scheme has them (fused ones split, split ones fused), and packed experts apart.

Nothing is copied or read ahead: a tensor of the view is parts of stored tensors, read when it is asked for. What was merged
in the view goes back into the stored scheme on its way to the file, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from math import prod
from types import MappingProxyType

import torch
from torch import Tensor

from dcmerge.checkpoints.base import Checkpoint, TensorInfo
from dcmerge.checkpoints.lora import LoraCheckpoint
from dcmerge.checkpoints.low_rank import LowRank, dense, stacked
from dcmerge.checkpoints.packed import Part, part_info, unpacked
from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.schemes import FUSED, SPLIT, complete_parts, fused_name, split_names, stored_qkv, third
from dcmerge.errors import InputError

STORED = "stored"
#: What can be asked for: as the files have it, or one of the two schemes.
QKV = (STORED, SPLIT, FUSED)
Value = Tensor | LowRank


Made = Mapping[str, tuple[Part, ...]]


class Regrouped(Checkpoint):
    """A view in which some tensors are parts of stored ones: of one (a split view, an expert) or of three (a fused view).

    Attributes:
        made: name in the view -> the parts that it consists of, top to bottom; of those that differ from the stored ones.
    """

    def __init__(self, stored: Checkpoint, names: Iterable[str], made: Made) -> None:
        infos = {name: _info(stored, made[name]) if name in made else stored.infos[name] for name in names}
        sources = {name: name if name in made else stored.source_names[name] for name in infos}
        Checkpoint.__init__(self, stored.path, infos, sources, stored.seen)  # not an adapter's, which opens files
        self.kind, self.notes, self.metadata = stored.kind, stored.notes, stored.metadata
        self.told, self.rivals, self.trained_class = stored.told, stored.rivals, stored.trained_class
        self.made = MappingProxyType(dict(made))
        self._stored = stored

    @property
    def stored(self) -> Checkpoint:
        return self._stored

    def read(self, name: str) -> Value:
        if name not in self.made:
            return self._stored.read(name)
        return stacked([self._read(part) for part in self.made[name]])

    def _read(self, part: Part) -> Value:
        if part.expert is not None:
            own = self._stored.read_rows(part.name, part.expert, part.expert + 1)
            return dense(own)[0][part.index].contiguous()
        whole = part.count == self._stored.infos[part.name].shape[0]
        return self._stored.read(part.name) if whole else self._stored.read_rows(part.name, part.start, part.stop)


class RegroupedLora(Regrouped, LoraCheckpoint):
    """The same of an adapter: rows of B, and fused factors as blocks, whose ranks add up."""

    def __init__(self, stored: LoraCheckpoint, names: Iterable[str], made: Made) -> None:
        Regrouped.__init__(self, stored, names, made)
        self._adapter = stored
        self.settings, self.dialect = stored.settings, stored.dialect
        self.whole = {name: stored.whole[name] for name in self.infos if name in stored.whole}
        self.kernels = {name: stored.kernels[name] for name in self.infos if name in stored.kernels}
        self.adapted = {name: stored.adapted[name] for name in self.infos if name in stored.adapted and name not in made}
        self.rank = max(self.rank_of(name) for name in self.infos)

    def rank_of(self, name: str) -> int:
        """r of one weight; 0 where the adapter has none for it."""
        return sum(self._adapter.rank_of(part.name) for part in self.made.get(name, ())) or self._adapter.rank_of(name)

    def magnitude(self, name: str) -> Tensor | None:
        return self._adapter.magnitude(name)


def regrouped(checkpoint: Checkpoint, qkv: str) -> Checkpoint:
    """The checkpoint with q, k and v "split" or "fused", or as it has them ("stored"), and with packed experts apart.

    The checkpoint itself where that is how it has them; an adapter's experts are apart from the start.

    Raises InputError for another word, and where one of the three is missing or of another width and they cannot be fused.
    """
    if qkv not in QKV:
        raise InputError(f"qkv: expected one of {', '.join(QKV)}, got {qkv!r}")
    names, made = {STORED: _as_stored, SPLIT: _split, FUSED: _fused}[qkv](checkpoint)
    if isinstance(checkpoint, LoraCheckpoint):
        return RegroupedLora(checkpoint, names, made) if made else checkpoint
    apart = unpacked(checkpoint.infos)
    names = [view for name in names for view in apart.get(name, (name,))]
    made |= {view: (part,) for parts in apart.values() for view, part in parts.items()}
    return Regrouped(checkpoint, names, made) if made else checkpoint


def _as_stored(checkpoint: Checkpoint) -> tuple[list[str], dict[str, tuple[Part, ...]]]:
    return list(checkpoint.infos), {}


def _split(checkpoint: Checkpoint) -> tuple[list[str], dict[str, tuple[Part, ...]]]:
    names: list[str] = []
    made: dict[str, tuple[Part, ...]] = {}
    for name, info in checkpoint.infos.items():
        parts = split_names(name)
        if parts is None:
            names.append(name)
            continue
        size = third(name, info.shape[0] if info.shape else 0)
        made |= {part: (Part(name, place * size, (place + 1) * size),) for place, part in enumerate(parts)}
        names += parts
    return names, made


def _fused(checkpoint: Checkpoint) -> tuple[list[str], dict[str, tuple[Part, ...]]]:
    names: list[str] = []
    made: dict[str, tuple[Part, ...]] = {}
    for name in checkpoint.infos:
        whole = fused_name(name)
        if whole is None:
            names.append(name)
        elif whole not in made:
            parts = complete_parts(whole, checkpoint.infos)
            shapes = [checkpoint.infos[part].shape for part in parts]
            if len({shape[1:] for shape in shapes}) > 1 or not all(shapes):
                raise InputError(
                    f"Expected q, k and v of one width to make {shown(whole)} of them, got "
                    f"{', '.join(map(str, map(list, shapes)))}."
                )
            made[whole] = tuple(Part(part, 0, shape[0]) for part, shape in zip(parts, shapes, strict=True))
            names.append(whole)
    return names, made


def _info(stored: Checkpoint, parts: tuple[Part, ...]) -> TensorInfo:
    infos = [stored.infos[one.name] for one in parts]
    if parts[0].expert is not None:
        return part_info(infos[0], parts[0])
    dtype = reduce(torch.promote_types, (info.dtype for info in infos))
    return TensorInfo((sum(one.count for one in parts), *infos[0].shape[1:]), dtype)


def stored_names(views: Iterable[Checkpoint], name: str) -> tuple[str, ...]:
    """The stored tensors that a name of these views stands for, in the first of them that has it."""
    return tuple(part.name for part in _parts(tuple(views), name)) or (name,)


def qkv_of(views: Iterable[Checkpoint], names: Iterable[str]) -> tuple[str, str]:
    """How q, k and v lie among these names of the views, and among the stored tensors that they stand for."""
    views, names = tuple(views), list(names)
    return stored_qkv(names), stored_qkv(stored for name in names for stored in stored_names(views, name))


@dataclass
class _Waiting:
    """A stored tensor of which not all parts have come: rows as they are, so that factors stay factors, or experts in place."""

    shape: tuple[int, ...]
    rows: dict[int, Value] = field(default_factory=dict)
    experts: Tensor | None = None
    filled: int = 0

    def put(self, part: Part, value: Value) -> None:
        self.filled += prod(value.shape)
        if part.expert is None:
            self.rows[part.start] = value
            return
        if self.experts is None:
            self.experts = torch.zeros(self.shape, dtype=value.dtype)
        self.experts[part.expert][part.index] = dense(value)

    @property
    def complete(self) -> bool:
        return self.filled == prod(self.shape)

    def whole(self) -> Value:
        """The tensor; what has not come is zero, as of a delta that nobody merged."""
        if self.experts is not None:
            return self.experts
        found: list[Value] = []
        for start, value in sorted(self.rows.items()):
            found += [*self._zeros(start - sum(one.shape[0] for one in found)), value]
        return stacked([*found, *self._zeros(self.shape[0] - sum(one.shape[0] for one in found))])

    def _zeros(self, rows: int) -> list[Value]:
        if not rows:
            return []
        factors = all(isinstance(value, LowRank) for value in self.rows.values())
        return [LowRank.zeros((rows, self.shape[1])) if factors else torch.zeros(rows, *self.shape[1:])]


def in_stored_scheme(views: Iterable[Checkpoint], values: Iterable[tuple[str, Value]]) -> Iterator[tuple[str, Value]]:
    """Values by names of these views as values by stored names, each as soon as all of its parts have come.

    A stored tensor of which only some parts come at all is yielded last, the others zero.
    """
    views = tuple(views)
    waiting: dict[str, _Waiting] = {}
    for name, value in values:
        parts, begin = _parts(views, name), 0
        if not parts:
            yield name, value
        for one in parts:
            part = value
            if one.expert is None:
                end = begin + one.count
                whole = end - begin == value.shape[0]
                part = value if whole else value.rows(begin, end) if isinstance(value, LowRank) else value[begin:end]
                begin = end
            at = waiting.setdefault(one.name, _Waiting(_stored_shape(views, name, one)))
            at.put(one, part)
            if at.complete:
                yield one.name, waiting.pop(one.name).whole()
    for name, at in waiting.items():
        yield name, at.whole()


def _holder(views: tuple[Checkpoint, ...], name: str) -> Checkpoint | None:
    return next((view for view in views if name in view.infos), None)


def _stored_shape(views: tuple[Checkpoint, ...], name: str, part: Part) -> tuple[int, ...]:
    holder = _holder(views, name)
    assert holder is not None  # it made the part
    return holder.stored.infos[part.name].shape


def _parts(views: tuple[Checkpoint, ...], name: str) -> tuple[Part, ...]:
    holder = _holder(views, name)
    return holder.made.get(name, ()) if isinstance(holder, Regrouped) else ()
