"""Small sets of task vectors on disk, for any test that needs some."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dcmerge.studies.small_sets import (
    SHAPES,
    SPLITS,
    TOWER,
    Factors,
    Tensors,
    full_set,
    lora_set,
    random_deltas,
    random_factors,
    random_tensors,
    tiny_bench,
    write_adapter,
)
from dcmerge.studies.trials import merged_dense, relative_error
from dcmerge.vectors.task_vectors import TaskVectors

__all__ = [
    "SHAPES",
    "SPLITS",
    "TOWER",
    "Factors",
    "Tensors",
    "full_set",
    "layer_set",
    "lora_set",
    "merged_dense",
    "random_deltas",
    "random_factors",
    "random_matrices",
    "random_tensors",
    "relative_error",
    "tiny_bench",
    "write",
    "write_adapter",
]


def random_matrices(count: int, rows: int, columns: int, seed: int = 0) -> list[Tensor]:
    """Gaussian matrices with singular values that decay like those of real deltas."""
    generator = torch.Generator().manual_seed(seed)
    small = min(rows, columns)
    decay = 1 / torch.arange(1, small + 1) ** 0.5
    matrices = []
    for _ in range(count):
        U, s, Vt = torch.linalg.svd(torch.randn(rows, columns, generator=generator), full_matrices=False)
        matrices.append((U * (s * decay)) @ Vt)
    return matrices


def write(path: Path, tensors: Tensors, prefix: str = "", dtype: torch.dtype | None = None) -> Path:
    """A safetensors file, every name behind a prefix, floating tensors in another dtype where one is given."""
    named = {
        prefix + name: (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous()
        for name, value in tensors.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(named, path)
    return path


def layer_set(folder: Path, deltas: list[Tensor]) -> TaskVectors:
    """A model of one matrix, called "weight", with these deltas."""
    return full_set(folder, {f"task{t}": {"weight": delta} for t, delta in enumerate(deltas)})
