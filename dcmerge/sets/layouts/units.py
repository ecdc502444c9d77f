"""Single checkpoints below a folder, each with the name that people gave it, however it was stored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dcmerge.checkpoints.lora import ADAPTER_CONFIG
from dcmerge.checkpoints.modules import MODULES, is_module
from dcmerge.checkpoints.opening import INDEX_SUFFIX, OLD_MODELS, SHARD, WHOLE_MODELS
from dcmerge.checkpoints.suffixes import SAFETENSORS_SUFFIX, weights_stem, weights_suffix
from dcmerge.sets.layouts.found import Skipped
from dcmerge.sets.layouts.peek import Peek, glance, peek, settings
from dcmerge.sets.layouts.tree import Folder, Tree

MODEL_CONFIG, OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"
OPEN_CLIP_WEIGHTS = tuple(f"open_clip_{name}" for name in ("model.safetensors", "pytorch_model.bin", "pytorch_model.safetensors"))
#: Folders of Hugging Face's download cache that hold no file under its own name.
HUB, SNAPSHOTS, HUB_INNER = "models--", "snapshots", ("blobs", "refs")
STEP = re.compile(r"(checkpoint|step|epoch)[-_]\d+")
#: A folder called so, alone in another, is that other one's model.
GENERIC = ("adapter", "adapter_model", "lora", "model", "final", "best", "last", "weights", "merged")
#: Weight files by their names that are no model, and what they are.
_NOT_MODELS = (
    (r"(optimizer|scheduler|scaler|rng_state|training_args|random_states).*", "belongs to the training, not to the model"),
    (r"non_lora_trainables", "was trained beside the adapter and is not read"),
    (r"linear_(finetuned|zeroshot)", "is a linearised model, whose values are not weights of this network"),
)
_HEAD = re.compile(r"head_(?P<first>.+)|(?P<last>.+)_head")


@dataclass(frozen=True)
class Unit:
    """One checkpoint: what ``open_checkpoint`` takes, its name, and the folder whose entries belong together."""

    path: Path
    name: str
    container: Path
    is_adapter: bool = False
    inner: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def peek(self) -> Peek:
        return peek(self.path)

    @property
    def glance(self) -> Peek:
        return glance(self.path)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its settings: of the adapter, of the Hugging Face model, or open_clip's; empty where there are none."""
        folder = self.path if self.path.is_dir() else self.path.parent
        if not self.path.is_dir() and self.path.name not in (*WHOLE_MODELS, *OLD_MODELS, *OPEN_CLIP_WEIGHTS):
            return {}
        names = (ADAPTER_CONFIG,) if self.is_adapter else (OPEN_CLIP_CONFIG, MODEL_CONFIG)
        return next((found for name in names if (found := settings(folder / name))), {})

    @property
    def lower(self) -> str:
        return self.name.lower()


def not_a_model(name: str) -> str:
    """Why a file of weights is no model of a set, by its name; nothing where it may be one."""
    stem = weights_stem(name)
    return next((why for pattern, why in _NOT_MODELS if re.fullmatch(pattern, stem)), "")


def head_of(name: str) -> str | None:
    """The task whose head a file holds, by its name; None for other files."""
    match = _HEAD.fullmatch(weights_stem(name)) if weights_suffix(name) else None
    return (match["first"] or match["last"]) if match else None


def is_model_folder(folder: Folder) -> bool:
    """Whether the files of a folder are one checkpoint."""
    marks = (ADAPTER_CONFIG, MODULES, *WHOLE_MODELS, *OLD_MODELS, OPEN_CLIP_CONFIG, *OPEN_CLIP_WEIGHTS)
    return any(name in folder.names for name in marks) or any(
        name.endswith(INDEX_SUFFIX) or SHARD.search(name) for name in folder.files
    )


def units_in(tree: Tree) -> tuple[list[Unit], list[Skipped]]:
    """Every checkpoint below a folder once, and those that are left out with the reason."""
    units, skipped = [], []
    for folder, parents in _with_parents(tree.folder, ()):
        if folder.path.name in HUB_INNER and parents and parents[-1].path.name.startswith(HUB):
            continue
        if parents and MODULES in parents[-1].names and is_module(folder.path.name):
            continue
        if not is_model_folder(folder):
            units += [_single(folder.path / name) for name in folder.files if _may_be_model(name)]
            continue
        reason = _left_out(folder, parents)
        if reason:
            skipped.append(Skipped(folder.path, reason))
        else:
            name, container, inner = _named(folder, parents)
            units.append(Unit(folder.path, name, container, ADAPTER_CONFIG in folder.names, inner))
    kept, doubles = _once(units)
    return kept, skipped + doubles


def _single(path: Path) -> Unit:
    """A checkpoint that is one file; a LoRA file of an image model tells itself by its names."""
    is_adapter = path.suffix == SAFETENSORS_SUFFIX and peek(path).kind == "lora"
    return Unit(path, weights_stem(path.name), path.parent, is_adapter)


def _with_parents(folder: Folder, parents: tuple[Folder, ...]) -> Iterator[tuple[Folder, tuple[Folder, ...]]]:
    yield folder, parents
    for inner in folder.folders:
        yield from _with_parents(inner, (*parents, folder))


def _may_be_model(name: str) -> bool:
    return bool(weights_suffix(name)) and not not_a_model(name) and head_of(name) is None


def _left_out(folder: Folder, parents: tuple[Folder, ...]) -> str:
    """Why a model folder is none of the set's: read access, an older state of a model, one of several downloads."""
    modules = [inner for inner in folder.folders if MODULES in folder.names and is_module(inner.path.name)]
    if sealed := next((one.sealed for one in (folder, *modules) if one.sealed), ""):
        return f"is a model folder in which a file {sealed}"
    if not parents:
        return ""
    steps = [other for other in parents[-1].folders if STEP.fullmatch(other.path.name) and is_model_folder(other)]
    if folder in steps and is_model_folder(parents[-1]):
        return f"is an earlier state of the model in {parents[-1].path.name}"
    if folder in steps and len(steps) > 1:
        return f"is one of {len(steps)} checkpoints of one training: choose one of them"
    if _in_hub(parents) and len(parents[-1].folders) > 1:
        try:
            main = (parents[-2].path / "refs" / "main").read_text().strip()
        except OSError:
            main = ""
        if main not in [other.path.name for other in parents[-1].folders]:
            return f"is one of {len(parents[-1].folders)} downloaded versions, none of them marked as main"
        return "" if folder.path.name == main else "is another downloaded version than the main one"
    return ""


def _in_hub(parents: tuple[Folder, ...]) -> bool:
    return len(parents) >= 2 and parents[-1].path.name == SNAPSHOTS and parents[-2].path.name.startswith(HUB)


def _named(folder: Folder, parents: tuple[Folder, ...]) -> tuple[str, Path, tuple[Path, ...]]:
    """Name and container of a model folder, and the folders between them, which belong to it."""
    if not parents:
        return folder.path.name, folder.path, ()
    if _in_hub(parents):
        repository, snapshots = parents[-2].path, parents[-1].path
        above = parents[-3].path if len(parents) >= 3 else repository
        return repository.name.removeprefix(HUB).partition("--")[2] or repository.name, above, (snapshots, repository)
    parent, name = parents[-1], folder.path.name
    alone = sum(map(is_model_folder, parent.folders)) == 1 and not any(map(_may_be_model, parent.files))
    if (STEP.fullmatch(name) or name.lower() in GENERIC) and alone and len(parents) >= 2:
        return parent.path.name, parents[-2].path, (parent.path,)
    return name, parent.path, ()


def _once(units: Iterable[Unit]) -> tuple[list[Unit], list[Skipped]]:
    """One checkpoint of each name: safetensors before folders before state dicts, which a converted file replaces."""
    best: dict[tuple[Path, str], Unit] = {}
    for unit in sorted(units, key=lambda u: (u.path.suffix != SAFETENSORS_SUFFIX, not u.path.is_dir(), str(u.path))):
        best.setdefault((unit.container, unit.name), unit)
    kept, doubles = [], []
    for unit in units:
        chosen = best[unit.container, unit.name]
        if chosen is unit:
            kept.append(unit)
        else:
            doubles.append(Skipped(unit.path, f"has the same name as {chosen.path.name}, which is used instead"))
    return kept, doubles
