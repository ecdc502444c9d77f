"""The folders in which the pages are run: small real models, made by the libraries, under the names that the pages use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from tests.builders import random_tensors, write
from tests.docs.pages import REPOSITORY
from tests.evaluation.datasets.builders import class_folders, pictures
from tests.hub import fill_cache
from tests.own_models import TASKS, heads_of, own_models, tiny_clip
from tests.ui.conftest import TOWER

#: What the tour with open_clip calls its model, in a size that a test can afford.
NAME = "ViT-B-32-quickgelu"
SMALL = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


def changed(tensors: dict[str, Tensor], seed: int, size: float = 0.05) -> dict[str, Tensor]:
    """Every tensor a little different, as fine-tuning leaves it."""
    deltas = random_tensors(seed, {name: tuple(value.shape) for name, value in tensors.items()}, scale=size)
    return {name: value + deltas[name] for name, value in tensors.items()}


def animals(folder: Path) -> None:
    """base, cats and dogs as single files, and the same as a set in checkpoints/animals."""
    base = random_tensors(0, TOWER)
    own = {"base": base, "cats": changed(base, 1), "dogs": changed(base, 2)}
    for name, tensors in own.items():
        write(folder / f"{name}.safetensors", tensors)
        write(folder / "checkpoints" / "animals" / f"{name}.safetensors", tensors)


def models_of_the_hub(folder: Path) -> None:
    """The same three as the hub's library leaves them in its cache."""
    names = {"base": "animals", "cats": "cats", "dogs": "dogs"}
    for file, name in names.items():
        weights = {"model.safetensors": (folder / f"{file}.safetensors").read_bytes(), "config.json": b"{}"}
        fill_cache(folder / "hub", f"friends/{name}", weights)


def language_models(folder: Path) -> None:
    """checkpoints/llama: a model and two others that are called after it."""
    base = random_tensors(5, {"layers.0.mlp.weight": (12, 8)})
    for seed, name in enumerate(("llama", "llama-finetuned-maths", "llama-finetuned-code")):
        write(folder / "checkpoints" / "llama" / f"{name}.safetensors", changed(base, seed, 0.1 * seed))


def adapters(folder: Path) -> None:
    """base/, a vision tower as transformers saves it, and adapters/ as PEFT does, of different ranks."""
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    torch.manual_seed(0)
    CLIPVisionModel(config).eval().save_pretrained(folder / "base")
    for seed, task in enumerate(("cats", "dogs", "birds"), start=1):
        torch.manual_seed(seed)
        lora = LoraConfig(r=2 + seed, lora_alpha=4, target_modules=["q_proj", "v_proj", "fc1"], init_lora_weights=False)
        model = CLIPVisionModel.from_pretrained(folder / "base")
        get_peft_model(model, lora).save_pretrained(folder / "adapters" / task)


def clip() -> nn.Module:
    """The whole CLIP in clip.pt."""
    torch.manual_seed(0)
    return open_clip.CLIP(**SMALL).eval()


def task_vectors(folder: Path) -> None:
    """clip.pt, and image encoders alone in checkpoints/ViT-B-32 as the merging papers publish them; old.pt holds a module."""
    weights = clip().state_dict()
    torch.save(weights, folder / "clip.pt")
    torch.save(nn.Sequential(nn.Linear(4, 3)), folder / "old.pt")
    own = {f"model.{name}": value for name, value in weights.items() if not name.startswith("transformer.")}
    tower = {name: value for name, value in own.items() if value.is_floating_point() and "attn_mask" not in name}
    for seed, data_set in enumerate(("MNIST", "SVHN", "DTD"), start=1):
        place = folder / "checkpoints" / "ViT-B-32" / f"{data_set}Val"
        place.mkdir(parents=True)
        torch.save(tower, place / "nonlinear_zeroshot.pt")
        torch.save(changed(tower, seed), place / "nonlinear_finetuned.pt")


def images(folder: Path) -> None:
    """data/greys: class folders of training and test images."""
    names = ["coal", "fog", "snow"]
    for part, count in (("train", 30), ("test", 9)):
        class_folders(folder / "data" / "greys" / part, pictures([n % 3 for n in range(count)]), names)


def dashboard(folder: Path) -> None:
    """The scripts of the dashboard, as they stand in the repository."""
    shutil.copy(REPOSITORY / "app.py", folder)
    shutil.copytree(REPOSITORY / "pages", folder / "pages", ignore=shutil.ignore_patterns("__pycache__"))


def evaluated_models(folder: Path, zoo_data: Path) -> None:
    """A CLIP with trained experts, their images and head files; and the models of the tiny zoo in a folder."""
    own_models(folder)
    (folder / "heads").mkdir()
    for task, head in heads_of(tiny_clip()).items():
        torch.save(head, folder / "heads" / f"head_{task}.pt")
    assert {path.stem for path in folder.glob("*.safetensors")} == {"base", *TASKS}
    own = folder / "experts-of-the-demo"
    shutil.copytree(zoo_data / "experts", own)
    shutil.copy(zoo_data / "base.safetensors", own)


#: What each page needs; a page that is not listed needs the animals alone.
NEEDS: dict[str, tuple[Callable[[Path], None], ...]] = {
    "docs/own-models.md": (animals, models_of_the_hub, task_vectors),
    "docs/adapters.md": (adapters,),
    "docs/contributing.md": (animals, language_models, images, dashboard),
}
EVALUATED = ("docs/accuracies.md",)


def furnish(page: str, folder: Path, zoo_data: Path) -> None:
    """Everything that a page's examples name."""
    if page in EVALUATED:
        evaluated_models(folder, zoo_data)
    for make in NEEDS.get(page, () if page in EVALUATED else (animals,)):
        make(folder)
