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
from dcmerge.checkpoints.writing import Piece
from dcmerge.errors import InputError
from dcmerge.merging.output.targets import COMPANIONS

WEIGHTS = "model" + SAFETENSORS_SUFFIX
_LARGEST_COMPANION = 64 << 20
_OLD, _NEW = "pytorch_model", "model"
_NAMED = 8
#: A model's folder in Hugging Face's download cache.
_HUB = "models--"


def shard_names(base: StoredCheckpoint) -> dict[str, str]:
    """Canonical name -> file that it goes to: the base's own, in safetensors' spelling; one file where the base is one file."""
    if not _source_folder(base):
        return dict.fromkeys(base.infos, WEIGHTS)
    return {name: _as_safetensors(base.file_of(name).name) for name in base.infos}


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
    homes = {base.source_names[name]: file for name, file in shard_names(base).items()}
    _check_room(folder, sum(info.nbytes for info in infos.values()))
    with ExitStack() as stack:
        shards = {
            file: stack.enter_context(
                SafetensorsWriter(folder / file, {name: info for name, info in infos.items() if homes[name] == file}, metadata)
            )
            for file in dict.fromkeys(homes.values())
        }
        for piece in tensors:
            shards[homes[piece[0]]].put_piece(piece)
            del piece  # before the next one is made
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(info.nbytes for info in infos.values())},
            "weight_map": {name: homes[name] for name in infos},
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
    weights, others = {file.name for file in base.files}, []
    for entry in sorted(source.iterdir()):
        if entry.name in COMPANIONS and _stays_inside(entry, source) and entry.stat().st_size <= _LARGEST_COMPANION:
            shutil.copyfile(entry, folder / entry.name)
        elif entry.name not in weights and not entry.name.startswith("."):
            others.append(shown(entry.name))
    if dtype is not None:
        _name_dtype(folder / "config.json", dtype)
    if not others:
        return ()
    told = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if len(others) > _NAMED else "")
    return (f"not copied from the base's folder (only settings and vocabulary are): {told}",)


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
