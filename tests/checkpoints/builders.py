"""Small real checkpoints for the tests: a model with attention, and an adapter as PEFT itself writes it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

BASE = "visual.transformer.resblocks.0."


class Block(nn.Module):
    """Named like a block of open_clip's vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(8, 16), "c_proj": nn.Linear(16, 8)})
        self.ln_1 = nn.LayerNorm(8)


class Tiny(nn.Module):
    """visual.transformer.resblocks.0.* and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.transformer = nn.Module()
        self.visual.transformer.resblocks = nn.ModuleList([Block()])
        self.token_embedding = nn.Embedding(10, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x


def tiny_state(seed: int = 0) -> dict[str, Tensor]:
    """The state dict of a Tiny."""
    torch.manual_seed(seed)
    return {name: tensor.detach().clone() for name, tensor in Tiny().state_dict().items()}


def save_adapter(folder: Path, model: nn.Module | None = None, **settings: object) -> tuple[nn.Module, PeftModel]:
    """Wrap a model with PEFT, fill its factors with random numbers, save it; the model before and the wrapped one."""
    torch.manual_seed(0)
    model = model or Tiny()
    before = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    wrapped = get_peft_model(model, LoraConfig(**{"r": 2, "lora_alpha": 4, **settings}))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter))
    wrapped.save_pretrained(str(folder))
    return before, wrapped


def write_header(path: Path, header: dict[str, object], size: int) -> None:
    """A safetensors file with that header and ``size`` bytes of sparse data: it takes no room on the disk."""
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)
