"""Synthetic language models of real sizes: LLaMA's names and shapes in bfloat16, as the folders that transformers writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.models import delta
from dcmerge.checkpoints import TensorInfo, write_safetensors

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Llama:
    """Width, width of the feed-forward layers, blocks, and tokens."""

    width: int
    feed: int
    blocks: int
    tokens: int = 32000
    heads: int = 16

    @property
    def shapes(self) -> Shapes:
        """Name -> shape, in the order of the files."""
        found: Shapes = {"model.embed_tokens.weight": (self.tokens, self.width)}
        for i in range(self.blocks):
            block = f"model.layers.{i}"
            found |= {f"{block}.self_attn.{part}_proj.weight": (self.width, self.width) for part in "qkvo"}
            found |= {f"{block}.mlp.{part}_proj.weight": (self.feed, self.width) for part in ("gate", "up")}
            found |= {
                f"{block}.mlp.down_proj.weight": (self.width, self.feed),
                f"{block}.input_layernorm.weight": (self.width,),
                f"{block}.post_attention_layernorm.weight": (self.width,),
            }
        return found | {"model.norm.weight": (self.width,), "lm_head.weight": (self.tokens, self.width)}

    @property
    def count(self) -> int:
        """Parameters."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    @property
    def settings(self) -> dict[str, object]:
        """What ``config.json`` holds."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": self.feed,
            "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "vocab_size": self.tokens,
            "tie_word_embeddings": False,
            "dtype": "bfloat16",
        }


#: 0.22 billion parameters; 1.2 billion, the size of a small model that people fine-tune whole.
SMALL, LARGE = Llama(1024, 2816, 12), Llama(2048, 5632, 22)


def write_models(folder: Path, model: Llama, count: int, shards: int = 1) -> tuple[Path, dict[str, Path]]:
    """A base and ``count`` experts as folders of bfloat16, in one file or in ``shards``; what is there already is kept."""
    base, experts = folder / "base", {f"task{t}": folder / f"task{t}" for t in range(count)}
    for seed, place in enumerate([base, *experts.values()]):
        if not (place / "config.json").exists():
            place.mkdir(parents=True, exist_ok=True)
            _write_weights(place, model.shapes, seed, shards)
            (place / "config.json").write_text(json.dumps(model.settings))
    return base, experts


def _write_weights(folder: Path, shapes: Shapes, seed: int, shards: int) -> None:
    names, homes = list(shapes), {}
    for shard in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        own = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        infos = {name: TensorInfo(shapes[name], torch.bfloat16) for name in own}
        write_safetensors(folder / file, _weights({name: shapes[name] for name in own}, seed), infos, durable=False)
        homes |= dict.fromkeys(own, file)
    if shards > 1:
        index = {"metadata": {}, "weight_map": homes}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _weights(shapes: Shapes, seed: int) -> Iterator[tuple[str, Tensor]]:
    """The base (seed 0) or an expert, base + delta; the same whatever the shards are."""
    for name, shape in shapes.items():
        place = sum(name.encode()) * 1009 + len(name)
        value = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(place))
        if seed:
            value += delta(shape, torch.Generator().manual_seed(100_003 * seed + place))
        yield name, value.to(torch.bfloat16)
