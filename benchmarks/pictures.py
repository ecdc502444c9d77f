"""What the synthetic towers lack to be evaluated: seeded images in class folders, heads, and the weights that no expert has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from dcmerge.evaluation.named import named_encoder
from dcmerge.vectors.task_vectors import TaskVectors

CLASSES, PIXELS = 10, 224


def bench_of(vectors: TaskVectors, folder: Path, encoder: str, images: int) -> dict[str, Any]:
    """What ``BenchSpecification.of`` takes, for ``images`` validation images a task; what is there already is kept."""
    tower = named_encoder(encoder)
    if not folder.exists():
        base = vectors.base
        assert base is not None
        draw = torch.Generator().manual_seed(3)
        lacking = {name: shape for name, shape in tower.shapes.items() if name not in base.infos}
        (folder / "heads").mkdir(parents=True)
        save_file({name: _usual(name, shape) for name, shape in lacking.items()}, folder / "rest.safetensors")
        heads = {task: torch.randn(CLASSES, tower.config["embed_dim"], generator=draw) for task in vectors.tasks}
        save_file(heads, folder / "heads" / "heads.safetensors")
        _write_images(folder / "data", vectors.tasks, images)
    named = {"data": folder / "data", "heads": folder / "heads", "weights": folder / "rest.safetensors"}
    return {"encoder": encoder, **{name: str(path) for name, path in named.items()}}


def _usual(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """As before any training: norms of one, biases of zero."""
    return torch.ones(shape) if name.endswith(".weight") and len(shape) == 1 else torch.zeros(shape)


def _write_images(folder: Path, tasks: Iterable[str], images: int) -> None:
    """Blurred noise, as JPEG: decoding and resizing take what they take for photographs."""
    draw = np.random.default_rng(0)
    for task in tasks:
        for part, count in (("val", images), ("test", 2 * CLASSES)):
            for number in range(count):
                path = folder / task / part / f"class {number % CLASSES}" / f"{number:04d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = draw.integers(0, 256, (14, 14, 3), dtype=np.uint8)
                Image.fromarray(noise).resize((PIXELS + 32, PIXELS), Image.Resampling.BICUBIC).save(path)
