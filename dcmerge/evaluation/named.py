"""open_clip's models by name, or by a configuration file: nothing is downloaded, weights come from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dcmerge.checkpoints.paths import read_json, shown
from dcmerge.errors import InputError
from dcmerge.evaluation.encoders import ImageEncoder

_KNOWN_KEYS = {
    "embed_dim",
    "vision_cfg",
    "text_cfg",
    "quick_gelu",
    "custom_text",
    "preprocess",
    "logit_scale",
    "init_logit_scale",
}
_QUICK = "-quickgelu"
#: Images at a time: a tower for large pictures holds more of each.
_LARGE_IMAGE, _LARGE_BATCH = 128, 64
#: Ten times what the largest published towers have.
_MOST = {
    "layers": 512,
    "width": 1 << 14,
    "image_size": 1 << 12,
    "embed_dim": 1 << 15,
    "mlp_ratio": 64,
    "context_length": 1 << 16,
    "vocab_size": 1 << 23,
}
#: What cannot be nothing; a tower may have no layers.
_SIZES = ("width", "image_size", "patch_size", "head_width", "embed_dim", "context_length", "vocab_size")


def named_encoder(name: str) -> ImageEncoder:
    """The image tower of an open_clip architecture (``ViT-B-32-quickgelu``), or of a configuration file (``*.json``).

    The file is open_clip's ``open_clip_config.json`` ("model_cfg", "preprocess_cfg") or its "model_cfg" alone. Raises InputError
    for an unknown name, and for models that are no plain CLIP.
    """
    config = _file(name) if name.endswith(".json") else _builtin(name)
    unknown = sorted(set(config) - _KNOWN_KEYS)
    lacking = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if unknown or lacking or config.get("custom_text"):
        told = f"{', '.join(unknown)} besides" if unknown else f"no {', '.join(lacking)}" if lacking else "its own text tower"
        raise InputError(f"encoder: expected a plain CLIP of open_clip, got {shown(name)} with {shown(told)}")
    _check_sizes(name, config)
    _check_normalisation(name, config.get("preprocess") or {})
    encoder = ImageEncoder(config)
    try:
        large = max(encoder.preprocess.size) >= _LARGE_IMAGE
        encoder = ImageEncoder(config, _LARGE_BATCH) if large else encoder
        encoder.shapes  # noqa: B018  (builds the tower: a bad configuration is told here)
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        told = f"{shown(name)} ({shown(error)})"
        raise InputError(f"encoder: expected a configuration that open_clip can build, got {told}") from None
    return encoder


def _check_sizes(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a tower that nobody has before it is built: the building alone would take all memory, or hours.

    A size below one goes wrong only later, in a tensor that cannot be made.
    """
    for part in ("vision_cfg", "text_cfg"):
        sizes = config[part] if isinstance(config[part], Mapping) else {}
        for key, value in [("embed_dim", config["embed_dim"]), *sizes.items()]:
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(number, (int, float)) and key in _MOST and not abs(number) <= _MOST[key]:
                    raise InputError(f"encoder: expected {key} of at most {_MOST[key]}, got {number:.6g} in {shown(name)}")
                if isinstance(number, (int, float)) and key in _SIZES and not number >= 1:
                    raise InputError(f"encoder: expected {key} of at least 1, got {number:.6g} in {shown(name)}")


def _check_normalisation(name: str, preprocess: Any) -> None:
    """Refuse a mean or a standard deviation that makes something else than numbers of pixels."""
    if not isinstance(preprocess, Mapping):
        raise InputError(f"encoder: expected preprocessing by its names, got {preprocess!r:.100} in {shown(name)}")
    for key, positive in (("mean", False), ("std", True)):
        value = preprocess.get(key)
        if value is None:
            continue
        numbers = value if isinstance(value, (list, tuple)) else []
        fine = len(numbers) == 3 and all(
            isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) and (one > 0 or not positive)
            for one in numbers
        )
        if not fine:
            expected = "three positive numbers" if positive else "three finite numbers"
            raise InputError(f"encoder: expected {expected} as the {key} of pixels, got {value!r:.100} in {shown(name)}")


def _builtin(name: str) -> dict[str, Any]:
    import open_clip

    if name not in open_clip.list_models():
        raise InputError(
            f"encoder: expected the name of an open_clip model, such as ViT-B-32{_QUICK} or ViT-L-14{_QUICK}, or a "
            f"*.json with its configuration, got {shown(name)}"
        )
    config = open_clip.get_model_config(name)
    assert config is not None  # every model that open_clip lists has one
    return dict(config)


def _file(path: str) -> dict[str, Any]:
    content = read_json(path)
    inner = content.get("model_cfg", content)
    if not isinstance(inner, Mapping):
        raise InputError(f"encoder: expected open_clip's configuration, got {shown(path)} with another one")
    preprocess = content.get("preprocess_cfg") or inner.get("preprocess")
    return {**inner, **({"preprocess": preprocess} if preprocess else {})}


def activation_note(name: str) -> str:
    """A warning where weights from OpenAI would be run with the wrong activation; empty where there is nothing to say."""
    import open_clip

    if name.endswith(_QUICK) or f"{name}{_QUICK}" not in open_clip.list_models():
        return ""
    return (
        f"{name} runs with GELU. OpenAI's weights, and models fine-tuned from them, were trained with QuickGELU: for these "
        f"choose the encoder {name}{_QUICK}."
    )
