"""What was merged, from what and how, as plain data: kept, and written beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from dcmerge.checkpoints.regrouped import QKV, STORED
from dcmerge.errors import InputError
from dcmerge.task_vectors import TaskVectors

#: Name of the recipe in a safetensors file's metadata.
METADATA_KEY = "dcmerge.recipe"
#: Largest α anyone may ask for: beyond it weights only overflow.
MAX_SCALE = 1000.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a merged model, as plain data. ``inputs`` maps "base" and each task to path and content hash."""

    inputs: Mapping[str, Mapping[str, str]]
    method: str
    parameters: Mapping[str, Any]
    scale: float | None = None
    scale_origin: str | None = None
    dtype: str | None = None
    #: How attention's q, k and v were merged: "split" or "fused"; "stored" where there is nothing to choose.
    qkv: str = STORED
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def recipe_of(
    vectors: TaskVectors, slug: str, parameters: Mapping[str, Any], scale: float | None, origin: str | None, dtype: str | None
) -> Recipe:
    """The recipe of a merge of these inputs, whose content it hashes."""
    sources = {**({"base": vectors.base} if vectors.base else {}), **vectors.experts}
    inputs = {name: {"file": c.path.name, "sha256": c.fingerprint} for name, c in sources.items()}
    versions = {"dcmerge": _version("dcmerge"), "torch": torch.__version__}
    qkv = vectors.qkv if vectors.qkv in QKV else STORED
    return Recipe(inputs, slug, dict(parameters), scale, origin, dtype, qkv, versions)


def check_scale(scale: Any) -> float:
    """The scale α as a float; raises InputError for anything but a finite number."""
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not abs(scale) <= MAX_SCALE:
        raise InputError(f"scale: expected a number in [-{MAX_SCALE:g}, {MAX_SCALE:g}], got {scale!r}")
    return float(scale)


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"
