"""A bench of a tiny encoder with three blocks, whose experts differ from the base in their blocks alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcmerge import TaskVectors
from dcmerge.evaluation import Bench, ImageEncoder, Split, Task
from tests.builders import full_set, random_tensors

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 3, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="package")
def blocks_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    encoder = ImageEncoder(CONFIG)
    base = random_tensors(0, encoder.shapes, scale=0.3)
    deltas = {
        f"task{seed}": {
            name: value * ("resblocks" in name) for name, value in random_tensors(seed + 1, encoder.shapes, scale=0.3).items()
        }
        for seed in range(2)
    }
    vectors = full_set(tmp_path_factory.mktemp("blocks"), deltas, base)
    tasks = {}
    for seed, (name, own) in enumerate(deltas.items()):
        draw = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (70, 3, 16, 16), generator=draw, dtype=torch.uint8)
        z = encoder.encode({n: base[n] + own[n] for n in base}, images)
        # Heads around the mean feature, so that random images do not all fall into one class.
        head = torch.nn.functional.normalize(z[:3] - z.mean(dim=0), dim=-1)
        labels = (z @ head.T).argmax(dim=1).clone()
        splits = {"val": Split(images[:40], labels[:40]), "test": Split(images[40:], labels[40:])}
        tasks[name] = Task(name, name.title(), ("a", "b", "c"), head, splits)
    return Bench(encoder, tasks, vectors)


@pytest.fixture
def convolutions(tmp_path: Path) -> TaskVectors:
    """A set without any attention."""
    return full_set(tmp_path, {f"task{t}": {"visual.conv1.weight": torch.ones(6, 3, 2, 2)} for t in range(2)})
