"""A merged model as a folder like the base's own: the same shards, index, settings and vocabulary."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from dcmerge.checkpoints import (
    INDEX_SUFFIX,
    SAFETENSORS_SUFFIX,
    Checkpoint,
    SafetensorsWriter,
    StoredCheckpoint,
    TensorInfo,
    read_json,
    shown,
    write_text,
)
from dcmerge.checkpoints.modules import Within, module_folders
from dcmerge.checkpoints.writing import Piece
from dcmerge.errors import InputError
from dcmerge.merging.output.targets import COMPANIONS

WEIGHTS = "model" + SAFETENSORS_SUFFIX
_LARGEST_COMPANION = 64 << 20
_OLD, _NEW = "pytorch_model", "model"
_NAMED = 8
#: A model's folder in Hugging Face's download cache.
_HUB = "models--"


def shard_names(base: StoredCheckpoint) -> dict[str, tuple[str, str]]:
    """Canonical name -> file that it goes to, and its name there: the base's own file, in safetensors' spelling.

    One file where the base is one file; a module of sentence-transformers has its own folder.
    """
    if not _source_folder(base):
        return {name: (WEIGHTS, source) for name, source in base.source_names.items()}
    found = {}
    for name, source in base.source_names.items():
        file = base.file_of(name)
        own = _as_safetensors(file.path.name)
        found[name] = (f"{file.inside}/{own}", source.removeprefix(file.prefix)) if isinstance(file, Within) else (own, source)
    return found


def _as_safetensors(name: str) -> str:
    """pytorch_model-00001-of-00002.bin as model-00001-of-00002.safetensors, which is what loaders look for."""
    path = Path(name)
    if path.suffix == SAFETENSORS_SUFFIX:
        return name
    return (_NEW + path.stem.removeprefix(_OLD) if path.stem.startswith(_OLD) else path.stem) + SAFETENSORS_SUFFIX


def _source_folder(base: Checkpoint) -> Path | None:
    """The folder that the base is; None where it is a single file."""
    if base.path.is_dir():
        return base.path
    return base.path.parent if base.path.name.endswith(INDEX_SUFFIX) else None


def write_shards(
    base: StoredCheckpoint,
    tensors: Iterable[Piece],
    infos: Mapping[str, TensorInfo],
    folder: Path,
    metadata: Mapping[str, str],
) -> None:
    """All tensors, by source name as they come, into the shards, which are open together; then the index."""
    homes = {base.source_names[name]: home for name, home in shard_names(base).items()}
    _check_room(folder, sum(info.nbytes for info in infos.values()))
    with ExitStack() as stack:
        shards = {}
        for file in dict.fromkeys(file for file, _ in homes.values()):
            (folder / file).parent.mkdir(exist_ok=True)
            inside = {own: infos[name] for name, (home, own) in homes.items() if home == file}
            shards[file] = stack.enter_context(SafetensorsWriter(folder / file, inside, metadata))
        for piece in tensors:
            file, own = homes[piece[0]]
            shards[file].put_piece((own, *piece[1:]))
            del piece  # before the next one is made
    weights = {name: file for name, (file, _) in homes.items() if "/" not in file}
    if len({*weights.values()}) > 1:
        index = {
            "metadata": {"total_size": sum(infos[name].nbytes for name in weights)},
            "weight_map": {name: weights[name] for name in infos if name in weights},
        }
        write_text(folder / _index_name(base), json.dumps(index, indent=2) + "\n")


def _index_name(base: Checkpoint) -> str:
    """The base's own index in safetensors' spelling, or the name that loaders look for."""
    own = next((file.name for file in base.files if file.name.endswith(SAFETENSORS_SUFFIX + INDEX_SUFFIX)), None)
    return own or WEIGHTS + INDEX_SUFFIX


def _check_room(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise InputError(f"Cannot write {shown(folder.parent)}: it needs {nbytes} bytes and the disk has {free} left.")


def copy_companions(base: Checkpoint, folder: Path, dtype: str | None = None) -> tuple[str, ...]:
    """Settings and vocabulary beside the weights of a base that is a folder; returns a note of what else is there.

    Where another dtype is written, the settings name it in the place of the base's.
    """
    source = _source_folder(base)
    if source is None:
        return ()
    others = _copied(source, folder, {file.name for file in base.files}, source)
    for module in module_folders(source):
        inside = _copied(module, folder / module.name, {file.name for file in base.files}, source)
        others = [name for name in others if name != shown(module.name)] + [f"{shown(module.name)}/{name}" for name in inside]
    if dtype is not None:
        _name_dtype(folder / "config.json", dtype)
    if not others:
        return ()
    told = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
    return (f"not copied from the base's folder (only settings and vocabulary are): {told}",)


def _copied(source: Path, folder: Path, weights: set[str], model: Path) -> list[str]:
    """Copies the companions of a folder; the names of everything else in it but the weights."""
    others = []
    for entry in sorted(source.iterdir()):
        if entry.name in COMPANIONS and _stays_inside(entry, model) and entry.stat().st_size <= _LARGEST_COMPANION:
            folder.mkdir(exist_ok=True)
            shutil.copyfile(entry, folder / entry.name)
        elif entry.name not in weights and not entry.name.startswith("."):
            others.append(shown(entry.name))
    return others


def _stays_inside(entry: Path, folder: Path) -> bool:
    """Whether a file lies in its folder, links followed; of a download cache in the model's part of it."""
    real, own = Path(os.path.realpath(entry)), Path(os.path.realpath(folder))
    cache = next((parent for parent in own.parents if parent.name.startswith(_HUB)), None)
    return real.is_file() and (real.is_relative_to(own) or (cache is not None and real.is_relative_to(cache)))


def _name_dtype(config: Path, dtype: str) -> None:
    """transformers loads a model in the dtype that its settings name ("dtype", before version 5 "torch_dtype")."""
    if not config.is_file():
        return
    settings = read_json(config)
    named = {key: dtype for key in ("dtype", "torch_dtype") if key in settings}
    if named:
        write_text(config, json.dumps(settings | named, indent=2) + "\n")
