"""What is written: base + α · merged in the base's own names and dtypes, or α · merged alone, one parameter at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dcmerge.checkpoints import Checkpoint, LowRank, TensorInfo, dense, scaled_sum, total
from dcmerge.checkpoints.writing import Piece
from dcmerge.errors import InputError
from dcmerge.merging.lengths import Length
from dcmerge.merging.output.kept import Kept
from dcmerge.merging.output.rounding import Rounding
from dcmerge.merging.output.targets import DTYPES
from dcmerge.merging.recipe import MODEL, Recipe
from dcmerge.spectral.linalg import square_of
from dcmerge.vectors.compatibility import PART_ENTRIES
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta, Rows, TaskVectors

#: Merges in parts: asked with what is to be done with each part and its delta, it gives the results, in order. Given layers as
#: well, those alone.
Parts = Callable[..., Generator["Ready", None, None]]


def infos_of(vectors: TaskVectors, content: str, dtype: torch.dtype | None = None) -> dict[str, TensorInfo]:
    """Names, shapes and dtypes of what is written, a model's own or another; raises InputError for a model without a base."""
    return _delta_infos(vectors) if content == "delta" else _model_infos(vectors, dtype)


def written_dtypes(vectors: TaskVectors, content: str, dtype: torch.dtype | None = None) -> str:
    """The dtypes in what is written: "bfloat16+float32"."""
    infos = {} if content == "adapter" else infos_of(vectors.as_stored(())[0], content, dtype)
    return "+".join(sorted({str(info.dtype).removeprefix("torch.") for info in infos.values()})) or "float32"


def asked_dtype(recipe: Recipe) -> str | None:
    """The dtype of all floating-point weights of the model that a recipe writes; None where it has several, or is no model."""
    floats = {dtype for dtype in (recipe.dtype or "").split("+") if "float" in dtype}
    return floats.pop() if recipe.content == MODEL and len(floats) == 1 and floats <= DTYPES.keys() else None


def tensors_of(
    vectors: TaskVectors,
    deltas: Iterable[tuple[str, Delta]],
    content: str,
    scale: float,
    dtype: torch.dtype | None = None,
    rounding: Rounding | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """base + scale · deltas, in its own dtypes or another, or scale · deltas alone, one tensor at a time.

    ``rounding`` hears of every merged weight what its dtype loses.
    """
    if content == "delta":
        return ((name, (scale * dense(delta)).float()) for name, delta in deltas)
    return _model(vectors, deltas, scale, dtype, Rounding() if rounding is None else rounding)


def _delta_infos(vectors: TaskVectors) -> dict[str, TensorInfo]:
    return {name: TensorInfo(tuple(p.shape), torch.float32) for name, p in vectors.parameters.items()}


def _model_infos(vectors: TaskVectors, dtype: torch.dtype | None) -> dict[str, TensorInfo]:
    base = _base(vectors)
    return {base.source_names[name]: TensorInfo(info.shape, _written(info, dtype)) for name, info in base.infos.items()}


def _base(vectors: TaskVectors) -> Checkpoint:
    if vectors.base is None:
        raise InputError("expected a base to add the merged delta to, got none; save the delta alone instead")
    return vectors.base


def _written(info: TensorInfo, dtype: torch.dtype | None) -> torch.dtype:
    """Another dtype is one of floating-point numbers: a table of integers stays one."""
    return info.dtype if dtype is None or not info.dtype.is_floating_point else dtype


def _model(
    vectors: TaskVectors, deltas: Iterable[tuple[str, Delta]], scale: float, dtype: torch.dtype | None, rounding: Rounding
) -> Iterator[tuple[str, Tensor]]:
    """The base's tensors under its own names: the merged ones as they come, then the others."""
    base = _base(vectors)
    untouched = dict(base.infos)
    for name, delta in _by_home(vectors, deltas):
        wanted, own = _written(untouched[name], dtype), base.tensor(name).float()
        value, lost = _stored(name, own, delta, scale, wanted)
        rounding.include(lost)
        shape = own.shape
        for one in (name, *(copy for copy, original in vectors.report.copies.items() if original == name)):
            if (info := untouched.pop(one, None)) is not None:
                yield base.source_names[one], value.to(_written(info, dtype)).reshape(shape)
    yield from _rest(base, untouched, dtype)


def parts_of(
    vectors: TaskVectors,
    parts: Parts,
    scale: float,
    dtype: torch.dtype | None,
    rounding: Rounding,
    length: Length,
    kept: Kept,
) -> Iterator[Piece]:
    """``tensors_of`` of a model whose parts are merged several at once: each is made ready for the file where it is merged.

    For sets whose files hold the parameters as they are merged, without copies. ``length`` hears of the deltas.
    """
    base = _base(vectors)
    untouched = dict(base.infos)
    with kept:
        for ready in parts(Finish(vectors, scale, dtype, kept)):
            rounding.include(ready.lost)
            length.add(ready.square)
            untouched.pop(ready.name, None)
            yield base.source_names[ready.name], ready.value, ready.rows and ready.rows[0]
    yield from _rest(base, untouched, dtype)


@dataclass(frozen=True)
class Ready:
    """A part of a parameter as it is written, what its dtype loses, and the square of its delta's norm."""

    name: str
    rows: Rows | None
    value: Tensor
    lost: Rounding
    square: float


@dataclass(frozen=True, eq=False)
class Finish:
    """Makes merged parts ready for the file: base + scale · delta, in the base's own dtypes or another."""

    vectors: TaskVectors
    scale: float
    dtype: torch.dtype | None
    kept: Kept | None = None

    def knows(self, name: str) -> bool:
        """Whether the same merge finished a parameter before it was killed."""
        return self.kept is not None and self.kept.has(name, self.written(name))

    def known(self, name: str) -> Ready:
        """A parameter that it ``knows``."""
        assert self.kept is not None
        return Ready(name, None, *self.kept.get(name, self.written(name)))

    def keep(self, ready: Ready) -> None:
        """Have a whole parameter at hand if this merge is killed."""
        if self.kept and ready.rows is None:
            self.kept.add(ready.name, ready.value, ready.lost, ready.square)

    def written(self, name: str) -> TensorInfo:
        """Shape and dtype of a parameter in the file."""
        info = _base(self.vectors).infos[name]
        return TensorInfo(info.shape, _written(info, self.dtype))

    def __call__(self, part: Layer, delta: Delta) -> Ready:
        own = self.vectors.base_tensor(part.name, part.rows).float()
        value, lost = _stored(part.name, own, delta, self.scale, self.written(part.name).dtype)
        square = delta.square() if isinstance(delta, LowRank) else square_of(delta)
        return Ready(part.name, part.rows, value.reshape(own.shape), lost, square)


def _stored(name: str, own: Tensor, delta: Delta, scale: float, dtype: torch.dtype) -> tuple[Tensor, Rounding]:
    """own + scale · delta as it is stored, and what that loses; own in float32 is (*shape), the delta may be a matrix of it."""
    value, lost = torch.empty(own.shape, dtype=dtype), Rounding()
    if isinstance(delta, LowRank):
        moved = scaled_sum(own.reshape(delta.shape), delta, scale)
        steps, moved_to = (scale * delta.dense()).view(-1), moved.view(-1)
    else:
        steps, moved_to = delta.reshape(-1), None
    # Small blocks stay in the processor's cache while everything is made of them.
    for start in range(0, own.numel(), PART_ENTRIES):
        block = slice(start, start + PART_ENTRIES)
        before, stored = own.view(-1)[block], value.view(-1)[block]
        step = steps[block] if moved_to is not None else scale * steps[block]
        moved = before + step if moved_to is None else moved_to[block]
        stored.copy_(moved)
        if not _finite(stored):
            raise InputError(f"{name} leaves the range of {dtype} at scale {scale:g}: expected a smaller scale")
        lost.add(before, step.float(), moved, stored)
    return value, lost


def _finite(value: Tensor) -> bool:
    """Whether all are numbers: a sum that is one says so, and quickly; another one may also have left the range itself."""
    return math.isfinite(value.sum().item()) or bool(torch.isfinite(value).all())


def _rest(base: Checkpoint, untouched: Mapping[str, TensorInfo], dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    """What is not merged, as the base has it."""
    for name, info in untouched.items():
        value = base.tensor(name)
        stored = value.to(_written(info, dtype))
        if not torch.isfinite(stored).all() and torch.isfinite(value).all():
            raise InputError(f"{name} leaves the range of {stored.dtype}: expected another dtype")
        yield base.source_names[name], stored


def _by_home(vectors: TaskVectors, deltas: Iterable[tuple[str, Delta]]) -> Iterator[tuple[str, Delta]]:
    """Deltas by the base's tensor that they change: those of one tied tensor are added, as soon as all of them have come."""
    expected = Counter(vectors.home(name) for name in vectors.parameters)
    waiting: dict[str, list[Delta]] = {}
    for name, delta in deltas:
        home = vectors.home(name)
        parts = waiting.setdefault(home, [])
        parts.append(delta)
        if len(parts) == expected[home]:
            yield home, total(waiting.pop(home)) if len(parts) > 1 else delta
