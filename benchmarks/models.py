"""Synthetic experts of real sizes: seeded deltas with a decaying spectrum, in memory or as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank, TensorInfo, write_safetensors
from dcmerge.vectors.cache import Store
from dcmerge.vectors.task_vectors import TaskVectors

#: Experts of the usual set.
TASKS = 8
#: width, blocks, width of the projection of open_clip's image towers.
TOWERS = {"ViT-B-32": (768, 12, 512), "ViT-L-14": (1024, 24, 768)}


def tower_shapes(name: str, blocks: int | None = None) -> dict[str, tuple[int, ...]]:
    """Parameters of an image tower; fewer ``blocks`` for a shorter run."""
    width, all_blocks, projection = TOWERS[name]
    patch = int(name.split("-")[-1])
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": ((224 // patch) ** 2 + 1, width),
        "visual.proj": (width, projection),
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.ln_post.bias": (width,),
    }
    for i in range(blocks or all_blocks):
        block = f"visual.transformer.resblocks.{i}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.out_proj.weight": (width, width),
            f"{block}.mlp.c_fc.weight": (4 * width, width),
            f"{block}.mlp.c_proj.weight": (width, 4 * width),
            f"{block}.mlp.c_fc.bias": (4 * width,),
            f"{block}.ln_1.weight": (width,),
        }
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
    return [_low_rank(wide, width, rank, draw) for _ in range(count)]


def write_adapter(
    folder: Path,
    factors: Mapping[str, LowRank] | Iterable[tuple[str, LowRank]],
    rank: int,
    dtype: torch.dtype = torch.float32,
    shapes: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """Adapted weights as PEFT writes them, with scale 1; ``shapes`` where the factors come one by one and are not held."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(factors, Mapping):
        shapes, factors = {name: delta.shape for name, delta in factors.items()}, factors.items()
    key = "base_model.model.{}.lora_{}.weight"
    infos = {
        key.format(name, part): TensorInfo(shape, dtype)
        for name, (m, n) in shapes.items()
        for part, shape in (("A", (rank, n)), ("B", (m, rank)))
    }
    named = (
        (key.format(name, part), value.to(dtype).contiguous())
        for name, delta in factors
        for part, value in (("A", delta.right), ("B", delta.left))
    )
    write_safetensors(folder / "adapter_model.safetensors", named, infos, durable=False)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(shapes)}
    (folder / "adapter_config.json").write_text(json.dumps(config))


#: The adapted weights of one block of a language model of 7 billion parameters (LLaMA's names), by (out, in).
BLOCK_OF_7B = {
    **{f"self_attn.{name}_proj": (4096, 4096) for name in "qkvo"},
    "mlp.gate_proj": (11008, 4096),
    "mlp.up_proj": (11008, 4096),
    "mlp.down_proj": (4096, 11008),
}


def write_adapters_of_7b(folder: Path, count: int, blocks: int = 32, rank: int = 16, dtype: torch.dtype = torch.float32) -> None:
    """``count`` seeded adapters of all seven targets of every block, ``task0`` .. in ``folder``; what is there is kept."""
    shapes = {f"model.layers.{i}.{name}": shape for i in range(blocks) for name, shape in BLOCK_OF_7B.items()}
    for task in range(count):
        if not (folder / f"task{task}" / "adapter_config.json").exists():
            write_adapter(folder / f"task{task}", _factors(shapes, rank, task), rank, dtype, shapes)


def _factors(shapes: Mapping[str, tuple[int, int]], rank: int, seed: int) -> Iterator[tuple[str, LowRank]]:
    draw = torch.Generator().manual_seed(seed)
    for name, (m, n) in shapes.items():
        yield name, _low_rank(m, n, rank, draw)


def _low_rank(m: int, n: int, rank: int, draw: torch.Generator) -> LowRank:
    return LowRank(
        0.02 * torch.randn(m, rank, generator=draw) * torch.linspace(1, 0.2, rank), 0.02 * torch.randn(rank, n, generator=draw)
    )
