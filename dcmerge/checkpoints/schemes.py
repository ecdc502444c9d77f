"""Two naming schemes of CLIP, open_clip's and Hugging Face's, and the two ways to store an attention's q, k and v.

open_clip keeps torch's fused ``in_proj_weight`` (3w, w), rows of q, then k, then v; Hugging Face three matrices
``q_proj.weight``, ``k_proj.weight`` and ``v_proj.weight`` (w, w). The numbers are the same, but a method that takes a
matrix as a whole (its singular vectors, its norm, its signs' majority) merges something else.
Hugging Face's ``visual_projection.weight`` and ``text_projection.weight`` are open_clip's ``visual.proj`` and
``text_projection`` transposed. Everything else is renamed alone.

Names: open_clip's ``CLIP`` (src/open_clip/model.py, transformer.py) and transformers' ``modeling_clip.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError

#: How q, k and v lie in a set of weights.
SPLIT, FUSED, MIXED, NONE = "split", "fused", "mixed", "none"
_FUSED = re.compile(r"(?P<module>(.+\.)?)in_proj_(?P<kind>weight|bias)")
_SPLIT = re.compile(r"(?P<module>(.+\.)?)(?P<part>[qkv])_proj\.(?P<kind>weight|bias)")

# Hugging Face's towers are ``vision_model.`` and ``text_model.``; transformers from 5 on saves CLIPVisionModel without its
# name, and so does PEFT. Beginnings of names, first match wins; N is a block's number.
_OUTSIDE = (
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("visual_projection.weight", "visual.proj"),
    ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_projection.weight", "text_projection"),
    ("logit_scale", "logit_scale"),
)
_INSIDE = (
    ("self_attn.", "attn."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
)
_TRANSPOSED = {"visual_projection.weight", "text_projection.weight"}
_BARE_VISION = re.compile(
    r"embeddings\.(class_embedding|patch_embedding\.weight|position_embedding\.weight)|(pre_layrnorm|post_layernorm)\..+"
    r"|encoder\.layers\.\d+\.(self_attn|layer_norm[12]|mlp)\..+"
)
_HUGGING_FACE_TOWERS, _OPEN_CLIP_TOWERS = ("vision_model.", "text_model."), ("visual.", "transformer.")
_POSITION_IDS = "position_ids"  # numbers from 0 on, which older files of Hugging Face hold: no weight


def stored_qkv(names: Iterable[str]) -> str:
    """How q, k and v lie among these names: "split", "fused", "mixed" (some so, some so) or "none"."""
    names = list(names)
    fused, split = (any(form.fullmatch(name) for name in names) for form in (_FUSED, _SPLIT))
    return MIXED if fused and split else FUSED if fused else SPLIT if split else NONE


def qkv_text(merged: str, stored: str) -> str:
    """ "attention's q, k and v: merged split (the files have them fused)"; empty where none is merged."""
    if merged == NONE:
        return ""
    files = "as the files have them" if merged == stored else f"the files have them {stored}"
    return f"attention's q, k and v: merged {merged} ({files})"


def fused_name(name: str) -> str | None:
    """The fused tensor that holds a q, k or v; None for any other name."""
    found = _SPLIT.fullmatch(name)
    return f"{found['module']}in_proj_{found['kind']}" if found else None


def split_names(name: str) -> tuple[str, str, str] | None:
    """The q, k and v in a fused tensor; None for any other name."""
    found = _FUSED.fullmatch(name)
    if found is None:
        return None
    q, k, v = (f"{found['module']}{part}_proj.{found['kind']}" for part in "qkv")
    return q, k, v


def complete_parts(name: str, known: Iterable[str]) -> Sequence[str]:
    """The q, k and v of a fused tensor; raises InputError where one of the three is not known."""
    parts, known = split_names(name), set(known)
    assert parts is not None  # a fused tensor's name, see ``fused_name``
    lacking = [part for part in parts if part not in known]
    if lacking:
        raise InputError(f"Expected q, k and v together to make {shown(name)} of them, got no {shown(', '.join(lacking))}.")
    return parts


def fused(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with every q, k and v as one tensor, in their order. Differentiable. InputError where one of three is missing."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        whole = fused_name(name)
        if whole is None:
            found[name] = value
        elif whole not in found:
            found[whole] = torch.cat([weights[part] for part in complete_parts(whole, weights)])
    return found


def split(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with every fused tensor as q, k and v, a third of the rows each: views. Differentiable."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        parts = split_names(name)
        found |= {name: value} if parts is None else dict(zip(parts, value.split(third(name, len(value))), strict=True))
    return found


def third(name: str, rows: int) -> int:
    """How many rows each of q, k and v has; raises InputError where they do not come out even."""
    if rows % 3:
        raise InputError(f"Expected q, k and v of one size in {shown(name)}, got {rows} rows.")
    return rows // 3


def open_clip_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of CLIP under open_clip's names (``visual.…``, the text tower's where there is one), q, k and v fused.

    Accepts Hugging Face's names (``vision_model.…``, ``text_model.…``, the vision tower's bare), split or fused, and
    open_clip's, which stay as they are but for a split q, k, v. Differentiable: no tensor is detached, most are not copied.
    Names that belong to neither tower (a classifier) stay. Without a ``visual_projection.weight`` there is no ``visual.proj``.

    Raises:
        InputError: one of q, k and v is missing, or a name in Hugging Face's towers has no place in CLIP.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith(_POSITION_IDS):
            continue
        whole = f"vision_model.{name}" if _BARE_VISION.fullmatch(name) else name
        new = _moved(whole, _OUTSIDE, _INSIDE)
        if new is None and whole.startswith(_HUGGING_FACE_TOWERS):
            raise InputError(f"Expected Hugging Face's CLIP, got {shown(name)}, which open_clip's has no name for.")
        renamed[new or name] = value.T if whole in _TRANSPOSED else value
    return fused(renamed)


def hugging_face_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: under Hugging Face's names (``vision_model.…``, ``text_model.…``), q, k and v split.

    Accepts what :func:`open_clip_weights` does. Raises InputError for a tower that is no plain vision transformer of CLIP.
    """
    outside, inside = (tuple((new, old) for old, new in table) for table in (_OUTSIDE, _INSIDE))
    renamed: dict[str, Tensor] = {}
    for name, value in open_clip_weights(weights).items():
        new = _moved(name, outside, inside)
        if new is None and name.startswith(_OPEN_CLIP_TOWERS):
            raise InputError(f"Expected open_clip's vision transformer, got {shown(name)}, which Hugging Face's has no name for.")
        renamed[new or name] = value.T if new in _TRANSPOSED else value
    return split(renamed)


def _moved(name: str, outside: Sequence[tuple[str, str]], inside: Sequence[tuple[str, str]]) -> str | None:
    """The name under the other scheme; None where there is no rule for it."""
    for old, new in outside:
        if name == old and not old.endswith("."):
            return new
        if old.endswith(".") and name.startswith(old):
            rest = name.removeprefix(old)
            if not old.endswith(("layers.", "resblocks.")):
                return new + rest
            number, _, role = rest.partition(".")
            found = next((there + role.removeprefix(here) for here, there in inside if role.startswith(here)), None)
            return f"{new}{number}.{found}" if found and number.isdigit() else None
    return None
