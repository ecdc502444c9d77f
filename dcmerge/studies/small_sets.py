"""Small sets of random models on disk: what a method is tried on before anybody trusts it with real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcmerge.checkpoints import TensorInfo, write_safetensors
from dcmerge.evaluation import Bench, ImageEncoder, Split, Task
from dcmerge.vectors.task_vectors import TaskVectors

Tensors = Mapping[str, Tensor]
Factors = Mapping[str, tuple[Tensor, Tensor]]

#: Every kind of parameter: matrices tall, wide and square, a vector, a scalar, a convolution, the averaged projection.
SHAPES: dict[str, tuple[int, ...]] = {
    "visual.conv1.weight": (6, 3, 2, 2),
    "visual.positional_embedding": (5, 12),
    "visual.mlp.c_fc.weight": (24, 12),
    "visual.mlp.c_proj.weight": (12, 24),
    "visual.attn.out_proj.weight": (12, 12),
    "visual.ln.bias": (12,),
    "text_projection": (4, 4),
    "logit_scale": (),
}


def random_tensors(seed: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES, scale: float = 1.0) -> dict[str, Tensor]:
    """Gaussian tensors of these shapes, the same at every call."""
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def random_deltas(tasks: int, seed: int = 0, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, dict[str, Tensor]]:
    """One delta of every parameter for each of several tasks."""
    return {f"task{t}": random_tensors(1000 * seed + t + 1, shapes) for t in range(tasks)}


def write_model(path: Path, tensors: Tensors) -> Path:
    """A safetensors file of these tensors, sorted by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    infos = {name: TensorInfo(tuple(tensors[name].shape), tensors[name].dtype) for name in sorted(tensors)}
    write_safetensors(path, tensors.items(), infos, durable=False)
    return path


def full_set(folder: Path, deltas: Mapping[str, Tensors], base: Tensors | None = None) -> TaskVectors:
    """Fully fine-tuned experts, base + delta. Without a base it is zero, so that the deltas read back are exact."""
    if base is None:
        base = {name: torch.zeros_like(value) for name, value in next(iter(deltas.values())).items()}
    source = write_model(folder / "base.safetensors", base)
    experts = {
        task: write_model(folder / f"{task}.safetensors", {**base, **{name: base[name] + d for name, d in own.items()}})
        for task, own in deltas.items()
    }
    return TaskVectors.open(source, experts)


def write_adapter(folder: Path, factors: Factors, alpha: float | None = None) -> Path:
    """A PEFT adapter folder: weight name -> (B (m, r), A (r, n)), all of one rank; without alpha the scale is 1."""
    rank = next(iter(factors.values()))[1].shape[0]
    tensors = {}
    for name, (B, A) in factors.items():
        module = "base_model.model." + name.removesuffix(".weight")
        tensors[f"{module}.lora_A.weight"], tensors[f"{module}.lora_B.weight"] = A, B
    write_model(folder / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank if alpha is None else alpha, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def random_factors(
    seed: int, rank: int = 2, shapes: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Gaussian factors of every adapted weight."""
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes or {"attn.q_proj.weight": (16, 12), "mlp.fc1.weight": (20, 16)}
    return {
        name: (torch.randn(m, rank, generator=generator), torch.randn(rank, n, generator=generator))
        for name, (m, n) in shapes.items()
    }


def lora_set(
    folder: Path, adapters: Mapping[str, Factors], alpha: float | None = None, base: Tensors | None = None
) -> TaskVectors:
    """LoRA experts, with or without the base that they adapt."""
    source = None if base is None else write_model(folder / "base.safetensors", base)
    return TaskVectors.open(source, {task: write_adapter(folder / task, factors, alpha) for task, factors in adapters.items()})


#: An open_clip model whose image tower of two blocks runs in a millisecond.
TOWER = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
    "preprocess": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
}
#: Images of each split of a tiny task.
SPLITS = {"val": 15, "test": 20}


def tiny_bench(
    folder: Path, tasks: int = 2, deltas: Mapping[str, Tensors] | None = None, tower: Mapping[str, Any] | None = None
) -> Bench:
    """A tiny tower with random experts (or these), each with a task of random images that it labels itself."""
    encoder = ImageEncoder({**TOWER, "vision_cfg": {**TOWER["vision_cfg"], **(tower or {})}})
    base = {n: v.abs() if n.endswith("running_var") else v for n, v in random_tensors(0, encoder.shapes, scale=0.5).items()}
    if deltas is None:
        moves = random_deltas(tasks, shapes=encoder.shapes)
        deltas = {task: {n: (0 if "running" in n else 0.3) * d for n, d in own.items()} for task, own in moves.items()}
    vectors = full_set(folder, deltas, base)
    experts = {task: {name: base[name] + d for name, d in own.items()} for task, own in deltas.items()}
    return Bench(encoder, {t: _tiny_task(encoder, t, seed, experts[t]) for seed, t in enumerate(deltas)}, vectors)


def _tiny_task(encoder: ImageEncoder, name: str, seed: int, expert: Tensors) -> Task:
    """Each class is the expert's embedding of one image: they lie close together, so predictions are uncertain and mixed."""
    draw = torch.Generator().manual_seed(seed)
    images = {split: _tiny_images(count, encoder.config["vision_cfg"]["image_size"], draw) for split, count in SPLITS.items()}
    embeddings = {split: encoder.encode(expert, own) for split, own in images.items()}
    head = embeddings["val"][:3].clone()
    splits = {split: Split(own, (embeddings[split] @ head.T).argmax(dim=1).clone()) for split, own in images.items()}
    return Task(name, name.title(), ("a", "b", "c"), head, splits)


def _tiny_images(count: int, size: int, draw: torch.Generator) -> Tensor:
    """Noise on a colour for each image, uint8 (N, 3, H, W): of noise alone all embeddings are nearly the same."""
    colours = torch.randint(0, 200, (count, 3, 1, 1), generator=draw, dtype=torch.uint8)
    return colours + torch.randint(0, 56, (count, 3, size, size), generator=draw, dtype=torch.uint8)
