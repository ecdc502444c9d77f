"""What the makers of bad inputs share: a case, small sound models to put beside what is bad, and raw files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

Expected = Literal["refused", "read", "either"]
#: Writes a case's inputs into a folder and returns the command's arguments.
Make = Callable[[Path], list[str]]
SHAPES: Mapping[str, tuple[int, ...]] = {"layer.weight": (6, 4), "layer.bias": (6,)}


@dataclass(frozen=True)
class Case:
    """One command on one bad input. ``expected``: exit code 2, 0, or either of them."""

    name: str
    expected: Expected
    make: Make


def tensors(seed: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, Tensor]:
    """Gaussian tensors of these shapes."""
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def model(path: Path, seed: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES, **about: Any) -> Path:
    """A sound safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors(seed, shapes), path, **about)
    return path


def raw(path: Path, content: bytes | str) -> Path:
    """A file of these bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def with_header(path: Path, header: Any, numbers: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file with any header: bytes as they are, anything else as JSON. ``length``: what it claims to be."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return raw(path, struct.pack("<Q", len(text) if length is None else length) + text + numbers)


def entry(shape: Any, start: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    """A tensor's place in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def merging(folder: Path, first: Path, *more: str, method: str = "average", out: str = "out.safetensors") -> list[str]:
    """Merge a file with a sound expert on a sound base."""
    base, other = model(folder / "base.safetensors", 0), model(folder / "other.safetensors", 2)
    return merged(folder, base, [first, other], *more, method=method, out=out)


def merged(
    folder: Path, base: Path | None, experts: Iterable[Path], *more: str, method: str = "average", out: str = "out.safetensors"
) -> list[str]:
    """The arguments of a merge."""
    named = [f"--expert=task{place}={path}" for place, path in enumerate(experts)]
    source = [] if base is None else [f"--base={base}"]
    return ["merge", *source, *named, f"--method={method}", f"--out={folder / out}", *more]
