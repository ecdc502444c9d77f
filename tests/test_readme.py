"""The tours of the pages, run as they stand on small models that the libraries made, and compared with their own forward pass."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, CLIPVisionModel

import dcmerge
from dcmerge.checkpoints import dense
from dcmerge.sets.layouts import find_sets

REPOSITORY = Path(__file__).resolve().parents[1]
ADAPTERS = ("docs/adapters.md", "From LoRA adapters to one adapter")
TASK_VECTORS = ("docs/own-models.md", "From task vectors to a model that open_clip loads")
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
#: What the second tour's model is called, with a size that a test can afford.
NAME, SMALL = (
    "ViT-B-32-quickgelu",
    {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    },
)


def blocks(place: tuple[str, str]) -> list[tuple[str, str]]:
    """Language and text of every code block below a heading of a page, its first two."""
    page, title = place
    section = (REPOSITORY / page).read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.S)[:2]


def walk(place: tuple[str, str], folder: Path, before: str = "", after: str = "") -> str:
    """Run a tour in a folder: shell blocks as they stand, Python ones between ``before`` and ``after``; everything printed."""
    told = []
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, text in blocks(place):
        code = f"{before}\n{text}\n{after}"
        command = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        told.append(done.stdout)
    return "\n".join(told)


def changed(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Every tensor a little different, as fine-tuning leaves it."""
    generator = torch.Generator().manual_seed(seed)
    return {name: value + 0.05 * torch.randn(value.shape, generator=generator) for name, value in tensors.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT still asks for it
def test_adapters_become_one_adapter_that_peft_loads(tmp_path: Path) -> None:
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    torch.manual_seed(0)
    CLIPVisionModel(config).eval().save_pretrained(tmp_path / "base")
    for seed, task in enumerate(("cats", "dogs", "birds"), start=1):
        torch.manual_seed(seed)
        lora = LoraConfig(r=2 + seed, lora_alpha=4, target_modules=["q_proj", "v_proj", "fc1"], init_lora_weights=False)
        get_peft_model(CLIPVisionModel.from_pretrained(tmp_path / "base"), lora).save_pretrained(tmp_path / "adapters" / task)
    told = walk(
        ADAPTERS,
        tmp_path,
        after="""
import torch
images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
torch.save(model.eval()(images).last_hidden_state.detach(), "seen.pt")""",
    )
    assert "cats" in told and "LoRA adapters" in told
    (found,) = find_sets(tmp_path / "adapters")
    merged = dcmerge.merge(dcmerge.TaskVectors.open(None, found.experts), "dc_merge")
    plain = CLIPVisionModel.from_pretrained(tmp_path / "base").eval()
    weights = plain.state_dict()
    ends = {name: next(own for own in weights if own.endswith(name)) for name in merged.deltas}
    for name, delta in merged.deltas.items():
        weights[ends[name]] += 0.8 * dense(delta)  # the module's own weights
    seen, before = torch.load(tmp_path / "seen.pt", weights_only=True), CLIPVisionModel.from_pretrained(tmp_path / "base").eval()
    torch.testing.assert_close(seen, plain(IMAGES).last_hidden_state, atol=1e-5, rtol=1e-5)
    assert (seen - before(IMAGES).last_hidden_state).abs().max() > 1e-3  # the adapter does something


@pytest.mark.slow
def test_task_vectors_become_a_clip_that_open_clip_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = open_clip.CLIP(**SMALL).eval()
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    own = {f"model.{name}": value for name, value in clip.state_dict().items() if not name.startswith("transformer.")}
    tower = {name: value for name, value in own.items() if value.is_floating_point() and "attn_mask" not in name}
    for seed, data_set in enumerate(("MNIST", "SVHN", "DTD"), start=1):
        folder = tmp_path / "checkpoints" / "ViT-B-32" / f"{data_set}Val"
        folder.mkdir(parents=True)
        torch.save(tower, folder / "nonlinear_zeroshot.pt")
        torch.save(changed(tower, seed), folder / "nonlinear_finetuned.pt")
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / f"{NAME}.json").write_text(json.dumps(SMALL))
    walk(
        TASK_VECTORS,
        tmp_path,
        before="import open_clip; open_clip.add_model_config('configs')",
        after="""
import torch
images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
model.eval()
torch.save({"seen": model.encode_image(images).detach(), "read": model.encode_text(torch.arange(16).reshape(2, 8)).detach()},
           "seen.pt")""",
    )
    found = torch.load(tmp_path / "seen.pt", weights_only=True)
    (one,) = find_sets(tmp_path / "checkpoints")
    merged = dcmerge.merge(dcmerge.TaskVectors.open(tmp_path / "clip.pt", one.experts), "dc_merge")
    before, weights = clip.encode_image(IMAGES), clip.state_dict()
    for name, delta in merged.deltas.items():
        weights[name] += dense(delta)  # the module's own weights
    torch.testing.assert_close(found["seen"], clip.encode_image(IMAGES), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["read"], clip.encode_text(torch.arange(16).reshape(2, 8)), atol=1e-5, rtol=1e-5)
    assert (found["seen"] - before).abs().max() > 1e-3  # the merge does something
