"""What is written: base + α · merged in the base's own names and dtypes, or α · merged alone, one parameter at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from dcmerge.checkpoints import TensorInfo, dense, scaled_sum
from dcmerge.errors import InputError
from dcmerge.task_vectors import Delta, TaskVectors


def infos_of(vectors: TaskVectors, content: str) -> dict[str, TensorInfo]:
    """Names, shapes and dtypes of what is written; raises InputError for a model without a base."""
    return _delta_infos(vectors) if content == "delta" else _model_infos(vectors)


def tensors_of(
    vectors: TaskVectors, deltas: Iterable[tuple[str, Delta]], content: str, scale: float
) -> Iterator[tuple[str, Tensor]]:
    """base + scale · deltas, or scale · deltas alone, one tensor at a time."""
    if content == "delta":
        return ((name, (scale * dense(delta)).float()) for name, delta in deltas)
    return _model(vectors, deltas, scale)


def _delta_infos(vectors: TaskVectors) -> dict[str, TensorInfo]:
    return {name: TensorInfo(tuple(p.shape), torch.float32) for name, p in vectors.parameters.items()}


def _model_infos(vectors: TaskVectors) -> dict[str, TensorInfo]:
    base = vectors.base
    if base is None:
        raise InputError("expected a base to add the merged delta to, got none; save the delta alone instead")
    return {base.source_names[name]: info for name, info in base.infos.items()}


def _model(vectors: TaskVectors, deltas: Iterable[tuple[str, Delta]], scale: float) -> Iterator[tuple[str, Tensor]]:
    """The base's tensors under its own names: the merged ones as they come, then the others as they are."""
    base, untouched = vectors.base, dict(vectors.base.infos)
    for name, delta in deltas:
        info = untouched.pop(name)
        value = scaled_sum(base.read(name).float(), delta, scale).to(info.dtype)
        if not torch.isfinite(value).all():
            raise InputError(f"{name} leaves the range of {info.dtype} at scale {scale:g}: expected a smaller scale")
        yield base.source_names[name], value
    yield from ((base.source_names[name], base.read(name)) for name in untouched)
