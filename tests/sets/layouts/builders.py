"""Small sets on disk in every layout, made by the libraries whose files they are."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import open_clip
import peft
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from tests.builders import TOWER, write

TASKS = ("DTD", "MNIST")
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 8,
}
TEXT = {
    "vocab_size": 32,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
LLAMA = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
}


def clip(seed: int) -> nn.Module:
    """open_clip's CLIP with a tiny tower of either kind."""
    torch.manual_seed(seed)
    return open_clip.CLIP(**{key: TOWER[key] for key in ("embed_dim", "vision_cfg", "text_cfg")})


def moved(weights: Mapping[str, Tensor], seed: int, size: float = 0.01) -> dict[str, Tensor]:
    """The weights after a little fine-tuning."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: value + size * torch.randn(value.shape, generator=draw) if value.is_floating_point() else value.clone()
        for name, value in weights.items()
    }


def image_encoder(model: nn.Module) -> dict[str, Tensor]:
    """What task arithmetic's ImageEncoder saves: a CLIP without the text tower's blocks, every name behind ``model.``."""
    return {f"model.{n}": v for n, v in model.state_dict().items() if not n.startswith("transformer.") and n != "attn_mask"}


def save(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def task_vectors(folder: Path, model: str = "ViT-B-32") -> Path:
    """TALL-masks: the base beside every expert, the model's name among the tensors."""
    base = image_encoder(clip(0))
    for seed, task in enumerate(TASKS, start=1):
        place = folder / model / f"{task}Val"
        save(place / "nonlinear_zeroshot.pt", {**base, "model_name": model})
        save(place / "nonlinear_finetuned.pt", {**moved(base, seed), "model_name": model})
        save(folder / model / f"head_{task}Val.pt", {"weight": torch.randn(4, 8), "bias": torch.zeros(4)})
    return folder


class Encoder(nn.Module):
    """Stands for the published code's own class, which nobody else has."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.proj = nn.Linear(4, 4)


def old_task_vectors(folder: Path, convert: bool = False) -> Path:
    """Task Arithmetic: whole modules, pickled; with ``convert`` their tensors beside them."""
    for name, seed in {"zeroshot": 0, **{f"{task}/finetuned": seed for seed, task in enumerate(TASKS, start=1)}}.items():
        path = save(folder / "ViT-B-32" / f"{name}.pt", Encoder(seed))
        if convert:
            write(path.with_suffix(".safetensors"), Encoder(seed).state_dict())
    for task in TASKS:
        save(folder / "ViT-B-32" / f"head_{task}.pt", nn.Linear(4, 3))
    (folder / "ViT-B-32" / "old.pkl").write_bytes(pickle.dumps([1]))
    return folder


def vision_model(seed: int) -> CLIPVisionModel:
    torch.manual_seed(seed)
    return CLIPVisionModel(CLIPVisionConfig(**VISION))


def fine_tuned(model: nn.Module, seed: int) -> nn.Module:
    """The model itself, changed in place."""
    model.load_state_dict(moved(model.state_dict(), seed))
    return model


def whole_clip(seed: int = 0) -> CLIPModel:
    torch.manual_seed(seed)
    return CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=8))


def tower_of(whole: CLIPModel) -> CLIPVisionModel:
    """The image tower of a whole CLIP as a model of its own."""
    tower = vision_model(0)
    prefix = "" if any(name.startswith("vision_model.") for name in tower.state_dict()) else "vision_model."
    tower.load_state_dict({n.removeprefix(prefix): v for n, v in whole.state_dict().items() if n.startswith("vision_model.")})
    return tower


MODEL = "clip-vit-base-patch32"


def fusion_bench(folder: Path, form: str = "{name}", whole: bool = True) -> Path:
    """Hugging Face image towers beside a whole CLIP, or beside a tower; ``form`` makes a folder's name of a model's."""
    base = whole_clip()
    (base if whole else tower_of(base)).save_pretrained(folder / form.format(name=MODEL))
    for seed, task in enumerate(TASKS, start=1):
        fine_tuned(tower_of(base), seed).save_pretrained(folder / form.format(name=f"{MODEL}_{task.lower()}"))
    return folder


def adapter(folder: Path, seed: int, *, safe: bool = True, base: str | None = None) -> Path:
    """A LoRA adapter of a tiny CLIP image tower, as PEFT saves it; without ``safe`` in PEFT 0.3's file."""
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    with warnings.catch_warnings():
        # PEFT asks transformers for a name that transformers is about to remove.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = peft.get_peft_model(vision_model(0), config)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.copy_(torch.randn(value.shape, generator=draw))
    adapted.save_pretrained(folder)
    if not safe:
        torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
        (folder / "adapter_model.safetensors").unlink()
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def adapters(folder: Path, form: str = "{task}", **how: object) -> Path:
    for seed, task in enumerate(TASKS, start=1):
        adapter(folder / form.format(task=task.lower()), seed, **how)
    return folder


def peft_with_base(folder: Path) -> Path:
    vision_model(0).save_pretrained(folder / "base")
    for task in TASKS:
        save(folder / "heads" / f"{task.lower()}_head.pt", {"weight": torch.randn(4, 8)})
    return adapters(folder)


def open_clip_models(folder: Path, text: bool = True, base: str = "base") -> Path:
    """open_clip files of equal names; without ``text`` the experts are image towers, beside the whole base."""
    weights = clip(0).state_dict()
    save(folder / f"{base}.pt", weights)
    for seed, task in enumerate(TASKS, start=1):
        own = moved(weights, seed)
        save(folder / f"{task}.pt", own if text else {n: v for n, v in own.items() if n.startswith("visual.")})
    return folder


def language_models(folder: Path, base: str = "base", told: str | None = None) -> Path:
    """Sharded language models; ``told`` is what the experts' settings say they were made from."""
    for seed, name in enumerate((base, *TASKS)):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**LLAMA))
        (fine_tuned(model, seed) if seed else model).save_pretrained(folder / name, max_shard_size="8kB")
        if told and name != base:
            path = folder / name / "config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "_name_or_path": told}))
    return folder


def plain(folder: Path) -> Path:
    base = {"a.weight": torch.randn(6, 4), "b": torch.randn(3)}
    write(folder / "base.safetensors", base)
    for seed, task in enumerate(TASKS, start=1):
        write(folder / f"{task}.safetensors", moved(base, seed))
    return folder


#: Every layout that can be opened as it is.
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "task_vectors": task_vectors,
    "old_task_vectors": lambda folder: old_task_vectors(folder, convert=True),
    "fusion_bench": fusion_bench,
    "peft": peft_with_base,
    "open_clip": open_clip_models,
    "language_model": language_models,
    "plain": plain,
}
