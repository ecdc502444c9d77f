"""Which of open_clip's models a checkpoint is the image encoder of: by settings, by names of folders, by shapes.

OpenAI's weights were trained with the quick GELU, which shapes do not show: open_clip has a name of its own for those models.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dcmerge.sets.layouts.peek import Shape

QUICK = "-quickgelu"
#: Of the configurations without one, as in transformers.
_ACTIVATION = "quick_gelu"
_HUGGING_FACE = re.compile(r"clip[-_]vit[-_](base|large|huge|giant)[-_]patch(\d+)(?:[-_](\d{3}))?", re.IGNORECASE)
_OPEN_CLIP = re.compile(r"ViT-(?:B|L|H|g|bigG)-\d+(?:-\d{3})?(?:-quickgelu)?")
_SIZES = {"base": "B", "large": "L", "huge": "H", "giant": "g"}
_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|layers)\.(\d+)\.")


@dataclass(frozen=True)
class Tower:
    """A vision transformer as its shapes show it: ``tokens`` counts the class token, ``embed`` is None where it is not stored."""

    width: int
    layers: int
    patch: int
    tokens: int
    embed: int | None = None

    def fits(self, other: Tower) -> bool:
        known = None in (self.embed, other.embed) or self.embed == other.embed
        return known and (self.width, self.layers, self.patch, self.tokens) == (
            other.width,
            other.layers,
            other.patch,
            other.tokens,
        )


def encoder_of(shapes: Mapping[str, Shape], config: Mapping[str, Any], openai: bool | None = None) -> str | None:
    """open_clip's name of the encoder in a checkpoint, or None where it holds none that open_clip knows.

    ``openai`` says whether the weights are OpenAI's (None: not known), where the settings do not say it.
    """
    quick = openai
    vision = config.get("vision_config", config) if isinstance(config.get("vision_config", config), Mapping) else {}
    if "clip" in str(config.get("model_type", "")):
        quick = vision.get("hidden_act", _ACTIVATION) == _ACTIVATION
    model = config.get("model_cfg")
    if isinstance(model, Mapping):
        quick = bool(model.get("quick_gelu", quick))
    tower = _of_open_clip(shapes) or _of_hugging_face(shapes)
    return _named(tower, bool(quick)) if tower else None


def encoder_in_name(name: str, shapes: Mapping[str, Shape] = MappingProxyType({})) -> str | None:
    """The encoder that the name of a model or folder tells, OpenAI's where it is Hugging Face's name of one.

    None where ``shapes`` show another tower than the one that is named.
    """
    told = _told_by(name)
    tower = _of_open_clip(shapes) or _of_hugging_face(shapes)
    return told if told is None or tower is None or _towers()[told].fits(tower) else None


def _told_by(name: str) -> str | None:
    if found := _HUGGING_FACE.search(name):
        size, patch, pixels = found.groups()
        known = f"ViT-{_SIZES[size.lower()]}-{patch}" + (f"-{pixels}" if pixels else "")
        return _existing(known + QUICK) or _existing(known)
    found = _OPEN_CLIP.search(name)
    return _existing(found[0]) if found else None


def as_openai(encoder: str | None) -> str | None:
    """The same encoder with the activation of OpenAI's weights."""
    return encoder and (_existing(encoder.removesuffix(QUICK) + QUICK) or encoder)


def _existing(name: str) -> str | None:
    return name if name in _towers() else None


def _named(tower: Tower, quick: bool) -> str | None:
    fitting = [name for name, known in _towers().items() if known.fits(tower) and not name.endswith(QUICK)]
    # Several share shapes (CoCa's, CLIPA's, other languages'): the plain one has the shortest name.
    name = min(fitting, key=lambda n: (len(n), n), default=None)
    return as_openai(name) if quick else name


@lru_cache(maxsize=1)
def _towers() -> dict[str, Tower]:
    """Every vision transformer among open_clip's configurations, read without importing it, which takes seconds."""
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.origin:
        return {}
    towers = {}
    for file in sorted((Path(found.origin).parent / "model_configs").glob("*.json")):
        config = json.loads(file.read_text(encoding="utf-8"))
        vision = config.get("vision_cfg", {})
        numbers = [vision.get("width", 768), vision.get("layers"), vision.get("patch_size"), vision.get("image_size")]
        if "timm_model_name" in vision or "hf_model_name" in config.get("text_cfg", {}):
            continue
        if all(isinstance(number, int) for number in numbers):
            width, layers, patch, pixels = numbers
            towers[file.stem] = Tower(width, layers, patch, (pixels // patch) ** 2 + 1, config.get("embed_dim"))
    return towers


def _of_open_clip(shapes: Mapping[str, Shape]) -> Tower | None:
    for prefix in ("visual.", ""):
        own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        conv, positions, proj = own.get("conv1.weight"), own.get("positional_embedding"), own.get("proj")
        if conv and positions and len(conv) == 4 and len(positions) == 2:
            return Tower(conv[0], _blocks(own), conv[2], positions[0], proj[1] if proj and len(proj) == 2 else None)
    return None


def _of_hugging_face(shapes: Mapping[str, Shape]) -> Tower | None:
    for prefix in ("vision_model.", ""):
        own = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        conv, positions = own.get("embeddings.patch_embedding.weight"), own.get("embeddings.position_embedding.weight")
        if conv and positions and len(conv) == 4 and len(positions) == 2:
            embed = (shapes.get("visual_projection.weight") or (None,))[0]
            return Tower(conv[0], _blocks(own), conv[2], positions[0], embed)
    return None


def _blocks(names: Iterable[str]) -> int:
    return 1 + max((int(found[1]) for name in names if (found := _BLOCK.search(name))), default=-1)
