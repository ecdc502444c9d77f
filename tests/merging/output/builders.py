"""Tiny models of the real libraries, and adapters as PEFT itself writes them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2Model, LlamaConfig, LlamaForCausalLM

TOKENS = torch.arange(12).reshape(2, 6) % 7
PIXELS = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


def llama(seed: int = 0, **settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        **settings,
    )
    return LlamaForCausalLM(config).eval()


def clip_vision(seed: int = 0) -> CLIPVisionModel:
    torch.manual_seed(seed)
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
        )
    ).eval()


def gpt2(seed: int = 0) -> GPT2Model:
    torch.manual_seed(seed)
    return GPT2Model(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16)).eval()


def outputs(model: nn.Module) -> Tensor:
    """Its first output on fixed inputs."""
    with torch.no_grad():
        core = model.get_base_model() if isinstance(model, PeftModel) else model
        vision = "CLIP" in type(core).__name__
        return model(pixel_values=PIXELS)[0] if vision else model(input_ids=TOKENS)[0]


def write_peft(folder: Path, model: nn.Module, seed: int, **settings: Any) -> Path:
    """An adapter of a copy of the model with random factors, saved by PEFT."""
    wrapped = get_peft_model(copy.deepcopy(model), LoraConfig(**{"r": 2, "lora_alpha": 3, **settings}))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    wrapped.save_pretrained(str(folder))
    return folder


def loaded(model: nn.Module, folder: Path) -> PeftModel:
    """The adapter on a copy of the model, as PEFT loads it."""
    return PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval()


def with_deltas(model: nn.Module, deltas: dict[str, Tensor], scale: float = 1.0) -> nn.Module:
    """A copy of the model with dense deltas added, by the end of the weights' names."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name, delta in deltas.items():
            found = [p for own, p in changed.named_parameters() if own == name or own.endswith("." + name)]
            assert len(found) == 1, name
            found[0].add_(scale * delta)
    return changed


def summed(model: nn.Module, folders: list[Path], weight: float) -> nn.Module:
    """Base + weight · Σ deltas, each delta as PEFT itself merges its adapter into the base."""
    changed = copy.deepcopy(model)
    before = model.state_dict()
    with torch.no_grad():
        total = changed.state_dict()
        for folder in folders:
            own = loaded(model, folder).merge_and_unload().state_dict()
            for name in before:
                total[name] += weight * (own[name] - before[name])
    return changed
