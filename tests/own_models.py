"""A tiny CLIP with experts that were really trained, and their data sets, on disk as people have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import open_clip
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from dcmerge.evaluation import ImageEncoder
from dcmerge.evaluation.datasets import Pictures
from dcmerge.evaluation.datasets.folders import class_folders as class_folders_of
from dcmerge.evaluation.datasets.templates import prompts
from dcmerge.evaluation.heads import text_heads
from dcmerge.evaluation.named import named_encoder
from tests.builders import write
from tests.evaluation.datasets.builders import class_folders, pictures

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "quick_gelu": True,
}
TASKS = {"tints": ["coal", "slate", "fog", "snow"], "corners": ["dusk", "noon", "dawn"]}


def data_root(folder: Path) -> Path:
    """A folder of class folders for each task: shades of grey; the second task's pictures are mirrored."""
    for seed, (task, names) in enumerate(TASKS.items()):
        for part, count in (("train", 30), ("test", 8)):
            labels = [n % len(names) for n in range(count * len(names))]
            rows = [(pixels * 2 if seed else pixels[::-1].copy(), y) for pixels, y in pictures(labels, 16, seed=seed + count)]
            class_folders(folder / task / part, rows, names)
    return folder


def tiny_clip(seed: int = 0) -> dict[str, Tensor]:
    """The weights of a whole CLIP, text tower included."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**CONFIG)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def write_config(folder: Path) -> Path:
    path = folder / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    return path


def heads_of(base: Mapping[str, Tensor], tasks: Mapping[str, list[str]] = TASKS) -> dict[str, Tensor]:
    """As the library computes them; the folders' classes come sorted."""
    sentences = {task: [prompts("picture", name) for name in sorted(names)] for task, names in tasks.items()}
    return {task: head.clone() for task, head in text_heads(CONFIG, base, sentences).items()}


def class_folder_images(folder: Path) -> Pictures:
    """All images of one split's folder."""
    return class_folders_of(folder).parts["all"]


def trained(encoder: ImageEncoder, base: Mapping[str, Tensor], head: Tensor, task: str, data: Path) -> dict[str, Tensor]:
    """The base's image tower after some steps on a task's training images, its head frozen."""
    split = class_folder_images(data / task / "train").decoded(encoder.preprocess)
    weights = {name: base[name].clone().requires_grad_() for name in encoder.shapes}
    optimiser = torch.optim.AdamW(weights.values(), lr=3e-3, weight_decay=0.0)
    for _ in range(60):
        features = normalize(encoder.forward(weights, split.images), dim=-1)
        optimiser.zero_grad()
        cross_entropy(20 * features @ head.T, split.labels).backward()
        optimiser.step()
    return {**base, **{name: value.detach() for name, value in weights.items()}}


def own_models(folder: Path) -> list[str]:
    """A base with text tower and an expert a task, their data, and the options that name all of it."""
    data, config, base = data_root(folder / "data"), write_config(folder), tiny_clip()
    encoder, heads = named_encoder(str(config)), heads_of(base)
    write(folder / "base.safetensors", base)
    for task in TASKS:
        write(folder / f"{task}.safetensors", trained(encoder, base, heads[task], task, data))
    experts = [f"--expert={task}={folder / task}.safetensors" for task in TASKS]
    return [f"--base={folder / 'base.safetensors'}", *experts, f"--encoder={config}", f"--data={data}"]
