"""A merged folder in the library that should load it: loaded as its users will, and run once."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dcmerge.checkpoints import ADAPTER_CONFIG, read_json

_CONFIG = "config.json"
#: A model of more bytes is not loaded only to look at it.
_LARGEST = 16 << 30


@dataclass(frozen=True)
class Loaded:
    """Whether a library loaded a folder whole and ran it, and what it said."""

    ok: bool
    text: str


def loaded_and_run(folder: Path, base: Path | None) -> Loaded | None:
    """Load with transformers, or with PEFT onto its base, and run on a few inputs; None where neither can be asked.

    Code of a model's own folder is never run (``trust_remote_code`` stays off), and nothing is fetched.
    """
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    source = base if is_adapter else folder
    needed = ["transformers", "peft"] if is_adapter else ["transformers"]
    if source is None or not (source / _CONFIG).is_file() or not all(map(importlib.util.find_spec, needed)):
        return None
    if sum(file.stat().st_size for file in source.iterdir() if file.is_file()) > _LARGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _with_peft(source, folder) if is_adapter else _with_transformers(folder)
    except Exception as error:  # a library that fails to load a folder may fail in any way; that is the finding
        return Loaded(False, f"{needed[-1]} does not load it: {str(error).strip().splitlines()[0][:300]}")


def _model_class(folder: Path) -> Any:
    import transformers

    names = read_json(folder / _CONFIG).get("architectures")
    name = names[0] if isinstance(names, list) and names else ""
    return getattr(transformers, str(name), transformers.AutoModel)


def _with_transformers(folder: Path) -> Loaded:
    model, told = _model_class(folder).from_pretrained(folder, output_loading_info=True, local_files_only=True)
    lacking = sorted(told["missing_keys"]) + sorted(str(one) for one in told["mismatched_keys"])
    if lacking:
        return Loaded(False, f"transformers finds no weight for {len(lacking)} of its parameters, such as {lacking[0]}")
    return _run(model, "transformers")


def _with_peft(base: Path, folder: Path) -> Loaded:
    from peft import PeftModel

    model = _model_class(base).from_pretrained(base, local_files_only=True)
    return _run(PeftModel.from_pretrained(model, folder), "PEFT")


def _run(model: Any, library: str) -> Loaded:
    """One forward pass: all of its outputs are numbers."""
    inputs = _inputs(model)
    if not inputs:
        return Loaded(True, f"{library} loads it; it was not run, as its inputs are not known here")
    with torch.no_grad():
        outputs = model.eval().float()(**inputs)
    first = outputs[0] if not isinstance(outputs, torch.Tensor) else outputs
    ok = bool(torch.isfinite(first).all())
    return Loaded(ok, f"{library} loads it and runs it: its output {'is' if ok else 'is not'} finite")


def _inputs(model: Any) -> dict[str, torch.Tensor]:
    """A few tokens or a grey image, by what the model calls its input; empty for a model of several inputs."""
    config = getattr(model, "config", None)
    name, kind = getattr(model, "main_input_name", ""), str(getattr(config, "model_type", ""))
    both = {"text_config", "vision_config"} <= set(vars(config)) if config is not None else True
    if both:
        return {}
    if name == "input_ids":
        tokens = torch.arange(1, 7)[None] % max(2, int(getattr(config, "vocab_size", 8)))
        return {"input_ids": tokens} | ({"decoder_input_ids": tokens} if getattr(config, "is_encoder_decoder", False) else {})
    size = getattr(config, "image_size", None)
    if name == "pixel_values" and isinstance(size, int) and kind:
        return {"pixel_values": torch.zeros(1, int(getattr(config, "num_channels", 3)), size, size)}
    return {}
