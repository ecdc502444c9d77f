"""A merge on disk: base + α · merged in the base's own names and dtypes, or α · merged alone, one parameter at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dcmerge.checkpoints import TensorInfo, dense, scaled_sum, write_safetensors
from dcmerge.errors import InputError
from dcmerge.recipe import CONTENTS, METADATA_KEY, Recipe
from dcmerge.task_vectors import Delta, TaskVectors


def write_merged(
    vectors: TaskVectors, deltas: Iterable[tuple[str, Delta]], path: str | Path, scale: float, delta_only: bool,
    recipe: Callable[[str], Recipe],
) -> None:  # fmt: skip
    """One file of base + scale · deltas, or of scale · deltas; ``recipe`` is asked with the dtypes that are written."""
    infos = _delta_infos(vectors) if delta_only else _model_infos(vectors)
    tensors = ((name, (scale * dense(d)).float()) for name, d in deltas) if delta_only else _model(vectors, deltas, scale)
    metadata = {METADATA_KEY: recipe(_listed_dtypes(infos)).embedded().to_json(), "content": CONTENTS[delta_only]}
    write_safetensors(path, tensors, infos, metadata)


def written_dtypes(vectors: TaskVectors, delta_only: bool) -> str:
    """The dtypes in such a file: "bfloat16+float32"."""
    return _listed_dtypes(_delta_infos(vectors) if delta_only else _model_infos(vectors))


def _listed_dtypes(infos: Mapping[str, TensorInfo]) -> str:
    return "+".join(sorted({str(info.dtype).removeprefix("torch.") for info in infos.values()}))


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
