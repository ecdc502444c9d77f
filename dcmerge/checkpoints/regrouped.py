"""A checkpoint seen with q, k and v as the other scheme has them: fused ones split, or split ones fused.

Nothing is copied or read ahead: a tensor of the view is rows of stored tensors, read when it is asked for. What was merged
in the view goes back into the stored scheme on its way to the file, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType

import torch
from torch import Tensor

from dcmerge.checkpoints.base import Checkpoint, TensorInfo
from dcmerge.checkpoints.lora import LoraCheckpoint
from dcmerge.checkpoints.low_rank import LowRank, stacked
from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.schemes import FUSED, SPLIT, complete_parts, fused_name, split_names, stored_qkv, third
from dcmerge.errors import InputError

STORED = "stored"
#: What can be asked for: as the files have it, or one of the two schemes.
QKV = (STORED, SPLIT, FUSED)
Value = Tensor | LowRank


@dataclass(frozen=True)
class Rows:
    """Rows ``start`` to ``stop`` of a stored tensor."""

    name: str
    start: int
    stop: int

    @property
    def count(self) -> int:
        return self.stop - self.start


class Regrouped(Checkpoint):
    """A view in which some tensors are rows of stored ones: of one (a split view) or of three (a fused one).

    Attributes:
        made: name in the view -> the rows that it consists of, top to bottom; of those that differ from the stored ones.
    """

    def __init__(self, stored: Checkpoint, names: Iterable[str], made: Mapping[str, tuple[Rows, ...]]) -> None:
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
        return stacked([self._read(rows) for rows in self.made[name]])

    def _read(self, rows: Rows) -> Value:
        whole = rows.count == self._stored.infos[rows.name].shape[0]
        return self._stored.read(rows.name) if whole else self._stored.read_rows(rows.name, rows.start, rows.stop)


class RegroupedLora(Regrouped, LoraCheckpoint):
    """The same of an adapter: rows of B, and fused factors as blocks, whose ranks add up."""

    def __init__(self, stored: LoraCheckpoint, names: Iterable[str], made: Mapping[str, tuple[Rows, ...]]) -> None:
        Regrouped.__init__(self, stored, names, made)
        self._adapter = stored
        self.settings, self.dialect = stored.settings, stored.dialect
        self.whole = {name: stored.whole[name] for name in self.infos if name in stored.whole}
        self.kernels = {name: stored.kernels[name] for name in self.infos if name in stored.kernels}
        self.adapted = {name: stored.adapted[name] for name in self.infos if name in stored.adapted and name not in made}
        self.rank = max(self.rank_of(name) for name in self.infos)

    def rank_of(self, name: str) -> int:
        """r of one weight; 0 where the adapter has none for it."""
        return sum(self._adapter.rank_of(rows.name) for rows in self.made.get(name, ())) or self._adapter.rank_of(name)

    def magnitude(self, name: str) -> Tensor | None:
        return self._adapter.magnitude(name)


def regrouped(checkpoint: Checkpoint, qkv: str) -> Checkpoint:
    """The checkpoint with q, k and v "split" or "fused"; itself where that is how it has them, and for "stored".

    Raises InputError for another word, and where one of the three is missing or of another width and they cannot be fused.
    """
    if qkv not in QKV:
        raise InputError(f"qkv: expected one of {', '.join(QKV)}, got {qkv!r}")
    names, made = {STORED: _as_stored, SPLIT: _split, FUSED: _fused}[qkv](checkpoint)
    if not made:
        return checkpoint
    if isinstance(checkpoint, LoraCheckpoint):
        return RegroupedLora(checkpoint, names, made)
    return Regrouped(checkpoint, names, made)


def _as_stored(checkpoint: Checkpoint) -> tuple[list[str], dict[str, tuple[Rows, ...]]]:
    return list(checkpoint.infos), {}


def _split(checkpoint: Checkpoint) -> tuple[list[str], dict[str, tuple[Rows, ...]]]:
    names: list[str] = []
    made: dict[str, tuple[Rows, ...]] = {}
    for name, info in checkpoint.infos.items():
        parts = split_names(name)
        if parts is None:
            names.append(name)
            continue
        size = third(name, info.shape[0] if info.shape else 0)
        made |= {part: (Rows(name, place * size, (place + 1) * size),) for place, part in enumerate(parts)}
        names += parts
    return names, made


def _fused(checkpoint: Checkpoint) -> tuple[list[str], dict[str, tuple[Rows, ...]]]:
    names: list[str] = []
    made: dict[str, tuple[Rows, ...]] = {}
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
            made[whole] = tuple(Rows(part, 0, shape[0]) for part, shape in zip(parts, shapes, strict=True))
            names.append(whole)
    return names, made


def _info(stored: Checkpoint, rows: tuple[Rows, ...]) -> TensorInfo:
    infos = [stored.infos[one.name] for one in rows]
    dtype = reduce(torch.promote_types, (info.dtype for info in infos))
    return TensorInfo((sum(one.count for one in rows), *infos[0].shape[1:]), dtype)


def stored_names(views: Iterable[Checkpoint], name: str) -> tuple[str, ...]:
    """The stored tensors that a name of these views stands for."""
    return tuple(rows.name for rows in _rows(tuple(views), name)) or (name,)


def qkv_of(views: Iterable[Checkpoint], names: Iterable[str]) -> tuple[str, str]:
    """How q, k and v lie among these names of the views, and among the stored tensors that they stand for."""
    views, names = tuple(views), list(names)
    return stored_qkv(names), stored_qkv(stored for name in names for stored in stored_names(views, name))


def in_stored_scheme(views: Iterable[Checkpoint], values: Iterable[tuple[str, Value]]) -> Iterator[tuple[str, Value]]:
    """Values by names of these views as values by stored names, each as soon as all of its rows have come."""
    views = tuple(views)
    sizes = {name: info.shape[0] for view in views for name, info in view.stored.infos.items() if info.shape}
    waiting: dict[str, dict[int, Value]] = {}
    for name, value in values:
        rows, begin = _rows(views, name), 0
        if not rows:
            yield name, value
        for one in rows:
            end = begin + one.count
            whole = end - begin == value.shape[0]
            part = value if whole else value.rows(begin, end) if isinstance(value, LowRank) else value[begin:end]
            parts, begin = waiting.setdefault(one.name, {}), end
            parts[one.start] = part
            if sum(part.shape[0] for part in parts.values()) == sizes[one.name]:
                yield one.name, stacked([part for _, part in sorted(waiting.pop(one.name).items())])


def _rows(views: tuple[Checkpoint, ...], name: str) -> tuple[Rows, ...]:
    return next((view.made[name] for view in views if isinstance(view, Regrouped) and name in view.made), ())
