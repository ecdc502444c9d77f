"""Write the zoo in its final formats: float16 safetensors, lossless WebP mosaics, heads, tasks and facts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import peft
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from dcmerge.zoo import edition
from dcmerge.zoo.build import calibration, pools
from dcmerge.zoo.build.finetune import ImageTower, make_head
from dcmerge.zoo.build.model import CONFIG, MEAN, STD, accuracy, read_facts
from dcmerge.zoo.build.pretrain import load_base
from dcmerge.zoo.build.profile import Profile
from dcmerge.zoo.build.tasks import TASKS, Task

MOSAIC_COLUMNS = {"val": 20, "test": 40}


def mosaic(images: np.ndarray, columns: int) -> Image.Image:
    """(n, 32, 32, 3) uint8 -> one picture of tiles, row by row; the last row is filled up with black."""
    rows = -(-len(images) // columns)
    full = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    full[: len(images)] = images
    tiles = full.reshape(rows, columns, *images.shape[1:])
    return Image.fromarray(tiles.transpose(0, 2, 1, 3, 4).reshape(rows * images.shape[1], columns * images.shape[2], 3))


def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16; raises ValueError when one is not finite afterwards."""
    rounded = {name: value.detach().to(torch.float16).contiguous() for name, value in state.items()}
    bad = [name for name, value in rounded.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise ValueError(f"not finite in float16: {bad}")
    return rounded


def pack(work: Path, run: Path, out: Path, profile: Profile) -> None:
    """Collect everything of a run in a fresh folder beside `out`, measure it as shipped, and move it into place."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for folder in ("experts", "lora", "images"):
        (part / folder).mkdir(parents=True)
    pack_model(run, part)
    pack_images(work, part)
    pack_texts(work, run, part)
    facts = measure(work, run, part)
    base = read_facts(run / "base.safetensors")
    base |= {"images_seen": base["steps"] * base["batch"], "calibration": calibration.load(run)}
    facts = {"edition": edition(part), "profile": profile.name, "seed": profile.seed, "base": base, "tasks": facts}
    (part / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    for file in part.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only the owner can read
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)


def pack_model(run: Path, part: Path) -> None:
    """model.json, base, experts and adapters."""
    scale = calibration.load(run)["logit_scale"]
    config = {**CONFIG, "preprocess": {"mean": list(MEAN), "std": list(STD)}, "logit_scale": scale}
    (part / "model.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(half(ImageTower(load_base(run).visual).state_dict()), part / "base.safetensors")
    for task in TASKS:
        state = load_file(run / "experts" / f"{task.name}.safetensors")
        save_file(half(state), part / "experts" / f"{task.name}.safetensors")
        target = part / "lora" / task.name
        target.mkdir()
        config = json.loads((run / "lora" / task.name / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "base.safetensors"
        (target / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        adapter = load_file(run / "lora" / task.name / "adapter_model.safetensors")
        save_file(half(adapter), target / "adapter_model.safetensors", metadata={"format": "pt"})


def pack_images(work: Path, part: Path) -> None:
    """Mosaics of the validation and test images, and all labels."""
    labels = {}
    for task in TASKS:
        for split, columns in MOSAIC_COLUMNS.items():
            images, target = pools.load(work, task.name, split)
            name = f"{task.name}_{split}"
            mosaic(images, columns).save(part / "images" / f"{name}.webp", lossless=True, quality=80, method=4)
            labels[name] = torch.as_tensor(target).to(torch.uint8)
    save_file(labels, part / "labels.safetensors")


def pack_texts(work: Path, run: Path, part: Path) -> None:
    """Zero-shot heads and the list of tasks."""
    save_file({task.name: make_head(run, task.name) for task in TASKS}, part / "heads.safetensors")
    (part / "tasks.json").write_text(json.dumps([describe(work, task) for task in TASKS], indent=1, ensure_ascii=False) + "\n")


def describe(work: Path, task: Task) -> dict:
    """A task's entry in tasks.json."""
    splits = {split: len(pools.load(work, task.name, split)[1]) for split in MOSAIC_COLUMNS}
    return {
        "name": task.name,
        "title": task.title,
        "description": task.description,
        "classes": list(task.classes),
        "prompts": list(task.prompts),
        "source": task.source,
        "licence": task.licence,
        "splits": splits,
        "split_rule": task.split_rule,
    }


def measure(work: Path, run: Path, part: Path) -> dict[str, dict]:
    """Accuracies of the packed (rounded) base, experts and adapters, beside what training reported before rounding."""
    heads, found = load_file(part / "heads.safetensors"), {}
    for task in TASKS:
        sets = {split: pools.load(work, task.name, split) for split in MOSAIC_COLUMNS}
        towers = {
            "zero_shot": _tower(run, part / "base.safetensors"),
            "lora": _adapted(run, part, task.name),
            "expert": _tower(run, part / "experts" / f"{task.name}.safetensors"),
        }
        scores = {
            kind: {split: accuracy(tower, heads[task.name], *sets[split]) for split in sets} for kind, tower in towers.items()
        }
        expert = read_facts(run / "experts" / f"{task.name}.safetensors")
        lora = json.loads((run / "lora" / task.name / "facts.json").read_text())
        found[task.name] = {**scores, "expert_training": expert, "lora_training": lora}
    return found


def _tower(run: Path, file: Path) -> ImageTower:
    tower = ImageTower(load_base(run).visual)
    tower.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    return tower


def _adapted(run: Path, part: Path, name: str) -> torch.nn.Module:
    return peft.PeftModel.from_pretrained(_tower(run, part / "base.safetensors"), part / "lora" / name).eval()
