"""Adapters whose settings do not fit their factors, or no settings at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.builders import random_factors, write_adapter
from tests.corpus.making import Case, Expected, merged, model, raw

MODULE = "base_model.model.attn.q_proj"
FACTORS = {"attn.q_proj.weight": (6, 4), "attn.v_proj.weight": (6, 4)}
ABSENT = object()
#: One setting each, beside r 2 and lora_alpha 4.
SETTINGS: dict[str, tuple[str, Any, Expected]] = {
    "no rank": ("r", ABSENT, "refused"),
    "the rank null": ("r", None, "refused"),
    "the rank a text": ("r", "2", "refused"),
    "the rank a list": ("r", [2], "refused"),
    "the rank false": ("r", False, "refused"),
    "the rank a fraction": ("r", 2.5, "refused"),
    "the rank zero": ("r", 0, "refused"),
    "the rank below zero": ("r", -1, "refused"),
    "another rank": ("r", 3, "refused"),
    "the rank 2^70": ("r", 2**70, "refused"),
    "the rank of 900 digits": ("r", 10**900, "refused"),
    "no alpha": ("lora_alpha", ABSENT, "refused"),
    "alpha a text": ("lora_alpha", "four", "refused"),
    "alpha a list": ("lora_alpha", [4], "refused"),
    "alpha not a number": ("lora_alpha", float("nan"), "refused"),
    "alpha infinite": ("lora_alpha", float("inf"), "refused"),
    "alpha of 900 digits": ("lora_alpha", 10**900, "refused"),
    "alpha 1e300": ("lora_alpha", 1e300, "refused"),
    "alpha zero": ("lora_alpha", 0, "either"),
    "alpha true": ("lora_alpha", True, "refused"),
    "a kind that is none": ("peft_type", "LOHA", "refused"),
    "prompt tuning": ("peft_type", "PROMPT_TUNING", "refused"),
    "the kind null": ("peft_type", None, "refused"),
    "the kind a mapping": ("peft_type", {"LORA": 1}, "refused"),
    "DoRA": ("use_dora", True, "refused"),
    "DoRA as a text": ("use_dora", "true", "either"),
    "rank-stabilised as a list": ("use_rslora", [1], "either"),
    "rank-stabilised as a text": ("use_rslora", "yes", "either"),
    "ranks in a text": ("rank_pattern", "q_proj=2", "refused"),
    "ranks in a list": ("rank_pattern", ["q_proj"], "either"),
    "a rank of null": ("rank_pattern", {"q_proj": None}, "refused"),
    "a rank of zero": ("rank_pattern", {"q_proj": 0}, "refused"),
    "a broken pattern": ("rank_pattern", {"q_proj[": 2}, "refused"),
    "a pattern that looks back": ("rank_pattern", {r"(a)\1": 2}, "refused"),
    "a pattern with nested quantifiers": ("rank_pattern", {"(([a-z_.]+)*)*!": 2}, "either"),
    "an alternating pattern": ("alpha_pattern", {"(a|a|a)*b": 2}, "either"),
    "a huge repetition": ("rank_pattern", {"(a{999}){999}": 2}, "refused"),
    "an alpha of null": ("alpha_pattern", {"q_proj": None}, "refused"),
    "an alpha that overflows": ("alpha_pattern", {"q_proj": 1e308}, "refused"),
    "an empty pattern": ("alpha_pattern", {"": 3}, "either"),
    "targets that are a number": ("target_modules", 3, "either"),
    "targets that are a mapping": ("target_modules", {"q_proj": 1}, "either"),
    "modules saved that are a number": ("modules_to_save", 1, "either"),
    "modules saved that are absent": ("modules_to_save", ["classifier"], "refused"),
    "biases": ("bias", "all", "either"),
    "biases that are a list": ("bias", ["none"], "either"),
    "PiSSA": ("init_lora_weights", "pissa", "refused"),
    "a version that is a number": ("peft_version", 0.18, "either"),
    "a version of letters": ("peft_version", "new", "either"),
    "a version of the far future": ("peft_version", "9" * 40 + ".0", "either"),
    "transposed as a text": ("fan_in_fan_out", "no", "either"),
    "another base's name in a list": ("base_model_name_or_path", ["x"], "either"),
    "a base's name that clears the screen": ("base_model_name_or_path", "\x1b[2Jbase", "either"),
    "layers that are none": ("layers_to_transform", [10**9], "either"),
    "a mapping of a class": ("auto_mapping", {"base_model_class": ["x"]}, "either"),
}
TEXTS: dict[str, tuple[bytes, Expected]] = {
    "nothing": (b"", "refused"),
    "null": (b"null", "refused"),
    "a list": (b"[]", "refused"),
    "a text": (b'"LORA"', "refused"),
    "half": (b'{"peft_type": "LORA", "r"', "refused"),
    "a comma too many": (b'{"peft_type": "LORA", "r": 2, "lora_alpha": 4,}', "refused"),
    "bytes": (b"\xff\xfe\x00", "refused"),
    "UTF-16": ('{"peft_type": "LORA"}'.encode("utf-16"), "refused"),
    "deep": (b'{"r":' * 50_000, "refused"),
    "deep lists": (b"[" * 50_000, "refused"),
    "a mark before": (b'\xef\xbb\xbf{"peft_type": "LORA", "r": 2, "lora_alpha": 4}', "either"),
    "the rank twice": (b'{"peft_type": "LORA", "r": 9, "r": 2, "lora_alpha": 4}', "either"),
    "a page": (b"<html>login</html>", "refused"),
}


def factors(seed: int = 0, **changed: Tensor | None) -> dict[str, Tensor]:
    """The tensors of an adapter of rank 2 on two modules; a changed one by the end of its name, None to leave it out."""
    found = {}
    for name, (up, down) in random_factors(seed, 2, FACTORS).items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        found |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    for key, value in changed.items():
        name = key if key.startswith("base_model") else f"{MODULE}.{key}"
        found = {n: v for n, v in found.items() if n != name} | ({} if value is None else {name: value})
    return found


def adapter(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A sound adapter of rank 2, but for these settings."""
    write_adapter(folder, random_factors(seed, 2, FACTORS), 4)
    path = folder / "adapter_config.json"
    known = {**json.loads(path.read_text()), "target_modules": ["q_proj", "v_proj"], **settings}
    path.write_text(json.dumps({key: value for key, value in known.items() if value is not ABSENT}))
    return folder


def both(folder: Path, first: Path, *more: str) -> list[str]:
    """Merge an adapter with a sound one, into an adapter."""
    return merged(folder, None, [first, adapter(folder / "sound", 1)], "--as-adapter", *more, out="out")


def _setting(name: str, key: str, value: Any, expected: Expected) -> Case:
    return Case(f"an adapter: {name}", expected, lambda folder: both(folder, adapter(folder / "odd", **{key: value})))


def _text(name: str, text: bytes, expected: Expected) -> Case:
    def make(folder: Path) -> list[str]:
        raw(adapter(folder / "odd") / "adapter_config.json", text)
        return both(folder, folder / "odd")

    return Case(f"an adapter's settings: {name}", expected, make)


def _weights(name: str, tensors: Mapping[str, Tensor], expected: Expected) -> Case:
    def make(folder: Path) -> list[str]:
        save_file(dict(tensors), adapter(folder / "odd") / "adapter_model.safetensors")
        return both(folder, folder / "odd")

    return Case(f"an adapter's factors: {name}", expected, make)


def _spoiled(name: str, spoil: Callable[[Path], object]) -> Case:
    def make(folder: Path) -> list[str]:
        spoil(adapter(folder / "odd"))
        return both(folder, folder / "odd")

    return Case(f"an adapter's folder: {name}", "refused", make)


def _swap(name: str, put: Callable[[Path], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> object:
        (folder / name).unlink()
        return put(folder / name)

    return spoil


def _pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"x": torch.nn.Linear(2, 2)}, folder / "adapter_model.bin")


FULL = torch.full((2, 4), 3e30)
TENSORS: dict[str, tuple[dict[str, Tensor], Expected]] = {
    "no B": (factors(**{"lora_B.weight": None}), "refused"),
    "no A": (factors(**{"lora_A.weight": None}), "refused"),
    "A of another rank": (factors(**{"lora_A.weight": torch.ones(3, 4)}), "refused"),
    "A of another width": (factors(**{"lora_A.weight": torch.ones(2, 9)}), "either"),
    "A a vector": (factors(**{"lora_A.weight": torch.ones(2)}), "refused"),
    "A empty": (factors(**{"lora_A.weight": torch.ones(0, 4), "lora_B.weight": torch.ones(6, 0)}), "refused"),
    "A not a number": (factors(**{"lora_A.weight": torch.full((2, 4), torch.nan)}), "refused"),
    "B infinite": (factors(**{"lora_B.weight": torch.full((6, 2), torch.inf)}), "refused"),
    "whole numbers": (factors(**{"lora_A.weight": torch.ones(2, 4, dtype=torch.int8)}), "refused"),
    "a product that overflows": (factors(**{"lora_A.weight": FULL, "lora_B.weight": torch.full((6, 2), 3e30)}), "refused"),
    "all zero": ({name: torch.zeros_like(value) for name, value in factors().items()}, "either"),
    "a magnitude of DoRA": (factors(lora_magnitude_vector=torch.ones(6)), "refused"),
    "a bias of LoRA": (factors(**{"lora_B.bias": torch.ones(6)}), "either"),
    "an embedding": (factors(lora_embedding_A=torch.ones(2, 4)), "refused"),
    "a stranger beside": (factors(**{"base_model.model.other": torch.ones(2)}), "either"),
    "none": ({"step": torch.ones(1)}, "refused"),
    "names without a module": ({"lora_A.weight": torch.ones(2, 4), "lora_B.weight": torch.ones(6, 2)}, "either"),
    "names that clear the screen": (
        {f"\x1b[2J.lora_{h}.weight": torch.ones(s) for h, s in (("A", (2, 4)), ("B", (6, 2)))},
        "either",
    ),
}
FOLDERS: dict[str, Callable[[Path], object]] = {
    "no factors": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "no settings": lambda folder: (folder / "adapter_config.json").unlink(),
    "settings in a pipe": _swap("adapter_config.json", os.mkfifo),
    "settings in a folder": _swap("adapter_config.json", Path.mkdir),
    "settings that are a loop": _swap("adapter_config.json", lambda path: path.symlink_to(path.name)),
    "factors in a pipe": _swap("adapter_model.safetensors", os.mkfifo),
    "factors that are rubbish": lambda folder: raw(folder / "adapter_model.safetensors", b"\x01" * 80),
    "factors in a pickle": _pickle,
}


def _with_full(folder: Path) -> list[str]:
    return merged(folder, model(folder / "base.safetensors", 0), [adapter(folder / "odd"), model(folder / "one.safetensors", 1)])


def _base_lacks(folder: Path) -> list[str]:
    return merged(folder, model(folder / "base.safetensors", 0), [adapter(folder / "odd"), adapter(folder / "sound", 1)])


def _full_as_adapter(folder: Path) -> list[str]:
    base, one = model(folder / "base.safetensors", 0), model(folder / "one.safetensors", 1)
    return merged(folder, base, [one], "--as-adapter", "--adapter-rank=99999", out="out")


CASES = [
    *(_setting(name, *found) for name, found in SETTINGS.items()),
    *(_text(name, *found) for name, found in TEXTS.items()),
    *(_weights(name, *found) for name, found in TENSORS.items()),
    *(_spoiled(name, spoil) for name, spoil in FOLDERS.items()),
    Case("an adapter beside a full model", "refused", _with_full),
    Case("adapters of another base", "refused", _base_lacks),
    Case("a full model as an adapter of rank 99999", "either", _full_as_adapter),
]
