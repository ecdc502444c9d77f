"""The command line run inside the test's own process, small checkpoints on disk, and a zoo of two tiny tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dcmerge.cli import main
from dcmerge.evaluation import ImageEncoder
from dcmerge.zoo import open_zoo
from tests.builders import full_set, lora_set, random_deltas, random_factors, random_tensors, write, write_adapter

TASKS = ("task0", "task1", "task2")


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def assert_refused(self, *words: str) -> None:
        """Exit code 2 and one line on stderr that holds these words."""
        assert self.code == 2, self
        assert len(self.err.splitlines()) == 1 and self.err.startswith("error: "), self.err
        assert "Traceback" not in self.err
        for word in words:
            assert word in self.err, (word, self.err)


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("merge", "--out", path)`` -> exit code, stdout, stderr."""

    def command(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # --help
            code = exit_.code
        return Result(code, *capsys.readouterr())

    return command


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Options that name a base and three fully fine-tuned experts, with a buffer of integers."""
    base = {**random_tensors(99, scale=3.0), "steps": torch.tensor([7])}
    deltas = {task: {**own, "steps": torch.tensor([0])} for task, own in random_deltas(3).items()}
    full_set(tmp_path, deltas, base)
    return model_options(tmp_path)


def model_options(folder: Path) -> list[str]:
    experts = [f"--expert={task}={folder / task}.safetensors" for task in TASKS]
    return [f"--base={folder / 'base.safetensors'}", *experts]


@pytest.fixture
def adapters(tmp_path: Path) -> list[str]:
    """Options that name two LoRA adapters, without a base."""
    lora_set(tmp_path, {task: random_factors(seed) for seed, task in enumerate(TASKS[:2])})
    return [f"--expert={task}={tmp_path / task}" for task in TASKS[:2]]


CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
    "preprocess": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    "logit_scale": 20.0,
}
SPLITS = {"val": 12, "test": 18}
ADAPTED = "visual.transformer.resblocks.0.mlp.c_fc.weight"


@pytest.fixture(scope="session")
def zoo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a zoo: two tasks of three classes whose experts know most answers."""
    data = tmp_path_factory.mktemp("zoo")
    torch.manual_seed(0)
    encoder = ImageEncoder(CONFIG)
    base = {f"visual.{name}": value.clone() for name, value in encoder.visual.state_dict().items()}
    heads, labels, entries = {}, {}, []
    for seed, task in enumerate(TASKS[:2]):
        delta = random_tensors(seed + 1, {name: tuple(value.shape) for name, value in base.items()}, scale=0.3)
        expert = {name: base[name] + delta[name] for name in base}
        draw = torch.Generator().manual_seed(seed)
        heads[task] = torch.nn.functional.normalize(torch.randn(3, 8, generator=draw), dim=-1)
        for split, count in SPLITS.items():
            images = torch.randint(0, 256, (count, 3, 32, 32), generator=draw, dtype=torch.uint8)
            answers = (encoder.encode(expert, images) @ heads[task].T).argmax(dim=1)
            answers[::6] = (answers[::6] + 1) % 3
            labels[f"{task}_{split}"] = answers
            _write_mosaic(data / "images" / f"{task}_{split}.webp", images)
        write(data / "experts" / f"{task}.safetensors", expert)
        write_adapter(data / "lora" / task, random_factors(seed, 2, {ADAPTED: (64, 16)}))
        about = {"description": "noise", "source": "a generator", "licence": "none", "split_rule": "seed"}
        entries.append({"name": task, "title": task.title(), "classes": ["a", "b", "c"], "splits": SPLITS, **about})
    write(data / "base.safetensors", base)
    save_file(heads, data / "heads.safetensors")
    save_file(labels, data / "labels.safetensors")
    (data / "model.json").write_text(json.dumps(CONFIG))
    (data / "tasks.json").write_text(json.dumps(entries))
    return data


def _write_mosaic(path: Path, images: torch.Tensor) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.ascontiguousarray(images.permute(2, 0, 3, 1).reshape(32, -1, 3).numpy())
    Image.fromarray(pixels).save(path, lossless=True, exact=True)


@pytest.fixture
def tiny_zoo(zoo_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command line finds the tiny zoo under the names of the embedded ones."""
    monkeypatch.setattr("dcmerge.cli.options.open_zoo", partial(open_zoo, data=zoo_data))
    return zoo_data
