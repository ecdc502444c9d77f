"""Synthetic experts of real sizes: seeded deltas with a decaying spectrum, in memory or as files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dcmerge.cache import Store
from dcmerge.checkpoints import LowRank, TensorInfo, write_safetensors
from dcmerge.task_vectors import TaskVectors

#: width, blocks, width of the projection of open_clip's image towers.
TOWERS = {"ViT-B-32": (768, 12, 512), "ViT-L-14": (1024, 24, 768)}


def tower_shapes(name: str, blocks: int | None = None) -> dict[str, tuple[int, ...]]:
    """Parameters of an image tower; fewer ``blocks`` for a shorter run."""
    width, all_blocks, projection = TOWERS[name]
    patch = int(name.split("-")[-1])
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (width,), "visual.positional_embedding": ((224 // patch) ** 2 + 1, width),
        "visual.proj": (width, projection), "visual.conv1.weight": (width, 3, patch, patch), "visual.ln_post.bias": (width,),
    }  # fmt: skip
    for i in range(blocks or all_blocks):
        block = f"visual.transformer.resblocks.{i}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.out_proj.weight": (width, width),
            f"{block}.mlp.c_fc.weight": (4 * width, width), f"{block}.mlp.c_proj.weight": (width, 4 * width),
            f"{block}.mlp.c_fc.bias": (4 * width,), f"{block}.ln_1.weight": (width,),
        }  # fmt: skip
    return shapes


def delta(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A seeded change: for a matrix 64 strong directions over a floor of noise, so that singular values decay."""
    noise = 1e-3 * torch.randn(shape, generator=generator)
    if len(shape) != 2:
        return noise
    left, right = torch.randn(shape[0], 64, generator=generator), torch.randn(64, shape[1], generator=generator)
    return noise + 1e-3 * (left * torch.linspace(1, 0.05, 64)) @ right


def tensors(shapes: dict[str, tuple[int, ...]], seed: int, base_seed: int | None = None) -> Iterator[tuple[str, Tensor]]:
    """The base (one seed) or an expert (base + delta), one tensor at a time."""
    for place, (name, shape) in enumerate(shapes.items()):
        draw = torch.Generator().manual_seed(100_003 * (seed if base_seed is None else base_seed) + place)
        value = 0.02 * torch.randn(shape, generator=draw)
        if base_seed is not None:
            value += delta(shape, torch.Generator().manual_seed(100_003 * (seed + 1) + place))
        yield name, value


def write_experts(folder: Path, shapes: dict[str, tuple[int, ...]], count: int) -> tuple[Path, dict[str, Path]]:
    """A base and ``count`` experts as safetensors, written one tensor at a time; what is there already is kept."""
    infos = {name: TensorInfo(shape, torch.float32) for name, shape in shapes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    base, experts = folder / "base.safetensors", {f"task{t}": folder / f"task{t}.safetensors" for t in range(count)}
    for seed, path in enumerate([base, *experts.values()]):
        if not path.exists():
            write_safetensors(path, tensors(shapes, seed, None if path is base else 0), infos, durable=False)
    return base, experts


def opened(folder: Path, shapes: dict[str, tuple[int, ...]], count: int, store: Store | None = None) -> TaskVectors:
    """Such experts as task vectors, without a cache on disk unless one is given."""
    vectors = TaskVectors.open(*write_experts(folder, shapes, count))
    vectors.store = store
    return vectors


def adapters(width: int, wide: int, rank: int, count: int) -> list[LowRank]:
    """Seeded LoRA deltas of one (wide, width) matrix."""
    draw = torch.Generator().manual_seed(width)
    return [
        LowRank(0.02 * torch.randn(wide, rank, generator=draw) * torch.linspace(1, 0.2, rank),
                0.02 * torch.randn(rank, width, generator=draw)) for _ in range(count)
    ]  # fmt: skip


def write_adapter(folder: Path, name: str, delta: LowRank) -> None:
    """One adapted weight as PEFT writes it, with scale 1."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"A": delta.right, "B": delta.left}
    named = {f"base_model.model.{name}.lora_{part}.weight": value.contiguous() for part, value in parts.items()}
    write_safetensors(folder / "adapter_model.safetensors", named.items(),
                      {n: TensorInfo(tuple(v.shape), v.dtype) for n, v in named.items()}, durable=False)  # fmt: skip
    config = {"peft_type": "LORA", "r": delta.rank, "lora_alpha": delta.rank, "target_modules": [name]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
