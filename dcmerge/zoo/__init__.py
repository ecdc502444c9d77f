"""The embedded demo: a small open_clip image tower, eight tasks, eight fully fine-tuned experts and eight LoRA experts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dcmerge.checkpoints.regrouped import STORED
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, ImageEncoder, Split, Task
from dcmerge.vectors.task_vectors import TaskVectors

DATA = Path(__file__).parent / "data"
#: Name of each zoo and what is in it.
ZOOS = {"demo": "Demo, full fine-tuning", "demo-lora": "Demo, LoRA rank 16"}


@dataclass(frozen=True, eq=False)
class Zoo:
    """A model set that can be evaluated: task vectors, and the bench of tasks, heads and encoder around them."""

    name: str
    title: str
    vectors: TaskVectors
    bench: Bench


def open_zoo(name: str, *, data: Path = DATA, qkv: str = STORED, progress: Callable[[float, str], None] | None = None) -> Zoo:
    """Open an embedded zoo by name, with q, k and v as ``TaskVectors.open`` groups them; InputError for an unknown name,
    and where its files are missing."""
    if name not in ZOOS:
        raise InputError(f"zoo: expected one of {', '.join(ZOOS)}, got {name!r}")
    try:
        return _opened(name, data, qkv, progress)
    except FileNotFoundError as error:
        raise InputError(f"the zoo's file {error.filename} is missing: python -m dcmerge.zoo.build makes it") from None


def _opened(name: str, data: Path, qkv: str, progress: Callable[[float, str], None] | None) -> Zoo:
    config = json.loads((data / "model.json").read_text())
    tasks = load_tasks(data)
    experts = {t: data / "lora" / t if name == "demo-lora" else data / "experts" / f"{t}.safetensors" for t in tasks}
    vectors = TaskVectors.open(data / "base.safetensors", experts, qkv=qkv, progress=progress)
    vectors.zoo = name
    return Zoo(name, ZOOS[name], vectors, Bench(ImageEncoder(config), tasks, vectors))


def load_tasks(data: Path = DATA) -> dict[str, Task]:
    """The zoo's tasks with their images, labels and heads."""
    heads, labels = load_file(data / "heads.safetensors"), load_file(data / "labels.safetensors")
    tasks = {}
    for entry in json.loads((data / "tasks.json").read_text()):
        name = entry["name"]
        splits = {
            split: Split(read_mosaic(data / "images" / f"{name}_{split}.webp", count), labels[f"{name}_{split}"].long())
            for split, count in entry["splits"].items()
        }
        facts = {key: entry[key] for key in ("source", "split_rule") if key in entry}
        tasks[name] = Task(
            name, entry["title"], tuple(entry["classes"]), heads[name], splits, entry["description"], entry["licence"], facts
        )
    return tasks


def edition(data: Path = DATA) -> str:
    """Sixteen hexadecimal digits of the content of all weights, heads, labels and images: another build has another edition."""
    digest = hashlib.sha256()
    for file in sorted([*data.rglob("*.safetensors"), *data.rglob("*.webp")]):
        digest.update(file.relative_to(data).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def kept_edition(data: Path = DATA) -> str | None:
    """The edition as the build wrote it beside the data, so that nothing large is read; None where no facts are kept."""
    try:
        return json.loads((data / "facts.json").read_text(encoding="utf-8")).get("edition")
    except (OSError, ValueError, AttributeError):
        return None


def read_mosaic(path: Path, count: int, size: int = 32) -> Tensor:
    """The first ``count`` tiles of a mosaic picture, row by row: uint8 (count, 3, size, size)."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    tiles = pixels.reshape(rows, size, columns, size, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, size, size)
    return torch.from_numpy(tiles[:count].copy())
