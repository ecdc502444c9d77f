"""Zero-shot heads: read from files, or computed by the text tower of open_clip's CLIP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dcmerge.checkpoints import open_checkpoint
from dcmerge.checkpoints.paths import checked_path, shown
from dcmerge.checkpoints.pickles import pickled_tensors
from dcmerge.checkpoints.state_dicts import read_tensors
from dcmerge.errors import InputError, PickledObject
from dcmerge.evaluation.temperature import length_of_rows

if TYPE_CHECKING:  # it takes seconds to import, which only those who compute heads should pay
    import open_clip

_ALL = "heads.safetensors"
_WEIGHT = "weight"
#: Class names at a time in the text tower.
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Head:
    """(classes, d) with rows of unit length, what they were divided by where that is one number, and where they came from."""

    rows: Tensor
    length: float | None
    origin: str


def read_head(folder: str | Path, names: Sequence[str]) -> Head:
    """The head of a task.

    ``names``: what the task may be called. Looked for are ``head_<name>Val.pt``, ``head_<name>.pt``, ``<name>_head.pt``,
    ``<name>.pt``, the same as .safetensors, and ``heads.safetensors`` with a tensor for each name. A head may be multiplied by
    CLIP's logit scale: rows get unit length, and ``length`` keeps it. Raises InputError where there is none, or it is no matrix
    of finite numbers.
    """
    place = checked_path(folder)
    if not place.is_dir():
        raise InputError(f"Expected a folder of head files, got the file {shown(place)}.")
    stems = [stem for name in names for stem in (f"head_{name}Val", f"head_{name}", f"{name}_head", name)]
    files = {path.name.lower(): path for path in sorted(place.iterdir()) if path.is_file()}
    for stem in stems:
        for suffix in (".pt", ".safetensors"):
            if path := files.get(f"{stem}{suffix}".lower()):
                return _unit(_matrix(_tensors(path), path), path, str(path))
    if path := files.get(_ALL):
        tensors = _tensors(path)
        by_name = {name.lower(): value for name, value in tensors.items()}
        for name in names:
            if name.lower() in by_name:
                return _unit(by_name[name.lower()], path, f"{path}: {name}")
    raise InputError(
        f"Expected a head of {shown(names[0])} in {shown(place)}, found none of "
        f"{', '.join(f'{shown(stem)}.pt' for stem in stems[:4])}, nor as .safetensors, nor in {_ALL}."
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".pt":
        try:
            return read_tensors(path)
        except PickledObject:  # a whole module, as the papers publish their heads: its tensors are read, nothing in it is run
            return pickled_tensors(path)
    checkpoint = open_checkpoint(path)
    return {name: checkpoint.tensor(name) for name in checkpoint.infos}


def _matrix(tensors: Mapping[str, Tensor], path: Path) -> Tensor:
    """The only tensor, or the weight of a linear layer without a bias that matters."""
    named = [value for name, value in tensors.items() if name == _WEIGHT or name.endswith(f".{_WEIGHT}")]
    weights = named or list(tensors.values())
    if any(name.endswith("bias") and bool(value.any()) for name, value in tensors.items()):
        raise InputError(f"Expected a head without bias, got one with a bias in {shown(path)}.")
    if len(weights) != 1:
        raise InputError(f"Expected one head in {shown(path)}, got the tensors {shown(', '.join(tensors))}.")
    return weights[0]


def _unit(head: Tensor, path: Path, origin: str) -> Head:
    if head.dim() != 2 or not head.is_floating_point() or not torch.isfinite(head).all():
        raise InputError(f"Expected a head as a matrix of finite numbers (classes, d), got {list(head.shape)} in {shown(path)}.")
    return Head(nn.functional.normalize(head.float(), dim=-1), length_of_rows(head), origin)


@torch.no_grad()
def text_heads(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    sentences: Mapping[str, Sequence[Sequence[str]]],
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Tensor]:
    """Heads by task: of every class the mean of its sentences' embeddings, each and the mean of unit length; (classes, d).

    ``config``: of the open_clip model; ``weights``: its text tower's among others, under open_clip's names; ``sentences``: by
    task, a list for each class. Raises InputError where weights are missing, or the tokens come from elsewhere.
    """
    import open_clip

    text = config["text_cfg"]
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise InputError("heads: expected a text tower with CLIP's own tokens, got another one: give head files")
    vision = open_clip.CLIPVisionCfg(image_size=8, patch_size=8, layers=1, width=8, head_width=8)  # not used
    own = {key: config[key] for key in ("embed_dim", "text_cfg", "quick_gelu") if key in config}
    model = open_clip.CLIP(**own, vision_cfg=vision).eval()
    needed = {name: value.shape for name, value in model.state_dict().items() if not name.startswith("visual.")}
    needed.pop("logit_scale", None)
    lacking = [name for name, shape in needed.items() if name not in weights or weights[name].shape != shape]
    if lacking:
        raise InputError(
            f"heads: expected the encoder's text tower to compute them with, got no fitting {lacking[0]} "
            f"({len(lacking)} of {len(needed)} weights lack): give head files, or weights that hold it"
        )
    model.load_state_dict({name: weights[name].float() for name in needed}, strict=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=text.get("context_length", 77))
    heads = {}
    for done, (task, classes) in enumerate(sentences.items()):
        if progress:
            progress(done / len(sentences), f"zero-shot head of {task}")
        heads[task] = torch.stack([_class_embedding(model, tokenizer(list(own))) for own in classes])
    return heads


def _class_embedding(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    found = torch.cat([model.encode_text(batch, normalize=True) for batch in tokens.split(_BATCH)])
    return nn.functional.normalize(found.mean(dim=0), dim=-1)
