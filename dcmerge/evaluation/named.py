"""open_clip's models by name, or by a configuration file: nothing is downloaded, weights come from elsewhere."""

from __future__ import annotations

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
    encoder = ImageEncoder(config)
    try:
        large = max(encoder.preprocess.size) >= _LARGE_IMAGE
        encoder = ImageEncoder(config, _LARGE_BATCH) if large else encoder
        encoder.shapes  # noqa: B018  (builds the tower: a bad configuration is told here)
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        told = f"{shown(name)} ({shown(error)})"
        raise InputError(f"encoder: expected a configuration that open_clip can build, got {told}") from None
    return encoder


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
