"""The zoo's small open_clip model, its input normalisation and its frozen zero-shot heads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dcmerge.zoo.build.tasks import Task

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CONTEXT = 16
CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 4, "width": 288, "head_width": 32, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}
Tokenizer = Callable[[list[str]], Tensor]


def new_model(seed: int, config: dict | None = None) -> open_clip.CLIP:
    """A freshly initialised open_clip CLIP in float32."""
    torch.manual_seed(seed)
    return open_clip.CLIP(**(config or CONFIG), init_logit_scale=math.log(1 / 0.07))


def tokenizer() -> Tokenizer:
    """open_clip's byte-pair tokenizer with the zoo's short context: texts -> (n, 16) int64."""
    return open_clip.SimpleTokenizer(context_length=CONTEXT)


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 by itself; elsewhere it would be slower than float32."""
    return torch.cpu._is_avx512_bf16_supported()


@contextmanager
def training_precision() -> Iterator[None]:
    """Multiply in bfloat16 where the processor can (weights, losses and updates stay in float32), else in float32.

    Attention by plain matrix products: PyTorch's fused one takes 40 % of a step in bfloat16 at 17 tokens, and with
    it bfloat16 gained nothing; without it a step takes half of float32's time.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()), sdpa_kernel(SDPBackend.MATH):
        yield


def normalise(images: np.ndarray | Tensor) -> Tensor:
    """(n, 32, 32, 3) uint8 -> (n, 3, 32, 32) float32, mean and deviation removed."""
    x = torch.as_tensor(np.asarray(images)).permute(0, 3, 1, 2).float().div_(255)
    return x.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1)).contiguous()


def write_weights(path: Path, state: dict[str, Tensor], facts: dict) -> None:
    """Write float32 weights as safetensors with the facts of their training in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in state.items()}
    save_file(tensors, path.with_suffix(".part"), metadata={"facts": json.dumps(facts)})
    path.with_suffix(".part").rename(path)


def read_facts(path: Path) -> dict:
    """The facts that write_weights stored."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["facts"])


@torch.no_grad()
def zero_shot_head(model: open_clip.CLIP, tokenize: Tokenizer, task: Task) -> Tensor:
    """(classes, embed_dim) float32 unit rows: the normalised mean of the prompts' normalised embeddings."""
    rows = []
    for name in task.classes:
        texts = tokenize([prompt.format(name.lower()) for prompt in task.prompts])
        rows.append(model.encode_text(texts, normalize=True).mean(0))
    return nn.functional.normalize(torch.stack(rows), dim=-1)


@torch.no_grad()
def accuracy(visual: nn.Module, head: Tensor, images: np.ndarray, labels: np.ndarray, batch: int = 200) -> float:
    """Top-1 accuracy of the image tower with a head (the scale of the embedding does not matter)."""
    was_training = visual.training
    visual.eval()
    hits = 0
    for start in range(0, len(labels), batch):
        predicted = (visual(normalise(images[start : start + batch])) @ head.T).argmax(1).numpy()
        hits += int((predicted == labels[start : start + batch]).sum())
    visual.train(was_training)
    return hits / len(labels)
