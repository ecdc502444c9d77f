"""``open_checkpoint``: from a path to a checkpoint, whatever the layout, or one sentence why not."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dcmerge.checkpoints.base import Checkpoint, StoredCheckpoint, TensorFile
from dcmerge.checkpoints.dialects import form_of
from dcmerge.checkpoints.hub import is_hub, located
from dcmerge.checkpoints.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LoraCheckpoint
from dcmerge.checkpoints.modules import module_folders, within
from dcmerge.checkpoints.paths import checked_file, checked_path, read_json, shown
from dcmerge.checkpoints.peft_keys import is_adapter_key
from dcmerge.checkpoints.quantised import refuse_quantised
from dcmerge.checkpoints.safetensors_files import SafetensorsFile
from dcmerge.checkpoints.seen import SeenFile
from dcmerge.checkpoints.state_dicts import LIVE, StateDictFile
from dcmerge.checkpoints.suffixes import SAFETENSORS_SUFFIX, STATE_DICT_SUFFIXES, weights_suffix
from dcmerge.errors import InputError

INDEX_SUFFIX = ".index.json"
# Hugging Face's names, in the order in which its own loaders look for them.
WHOLE_MODELS = ("model.safetensors", "model.safetensors.index.json")
OLD_MODELS = ("pytorch_model.bin", "pytorch_model.bin.index.json")
SHARD = re.compile(r"-(\d+)-of-(\d+)\.safetensors$")


def open_checkpoint(path: str | os.PathLike[str], weights: str = LIVE) -> Checkpoint:
    """Open a file or a folder of weights lazily: only names, shapes and dtypes are read.

    Accepts a .safetensors file; a shard index (``*.index.json``); a state dict (.pt, .pth, .bin); a folder with
    ``adapter_config.json`` (PEFT LoRA), ``model.safetensors``, a shard index, one or more .safetensors files, or one
    state dict. ``hub:owner/name[@revision]`` is looked for in the hub's cache on this machine (see ``hub.located``).
    ``weights`` is "live" or "ema": which weights of a training state that holds both.

    Raises:
        InputError: one sentence with the path: what was expected and what is there.
    """
    checked = checked_path(located(os.fspath(path)) if is_hub(path) else path)
    try:
        checkpoint = _open_folder(checked, weights) if checked.is_dir() else _open_file(checked, weights)
    except OSError as error:
        raise InputError(f"Cannot open {shown(checked)}: {error.strerror or error}.") from None
    refuse_quantised(checkpoint)
    return checkpoint


def _open_file(path: Path, weights: str) -> Checkpoint:
    if path.name.endswith(INDEX_SUFFIX):
        return _open_index(path, path)
    if path.name == ADAPTER_CONFIG:
        return LoraCheckpoint.open(path.parent)
    file = _tensor_file(path, weights)
    if path.name in ADAPTER_WEIGHTS and (path.parent / ADAPTER_CONFIG).exists():
        return LoraCheckpoint.open(path.parent)
    if isinstance(file, SafetensorsFile) and (dialect := form_of(file.infos)):
        return LoraCheckpoint.of_file(file, dialect)
    return _stored(path, [file])


def _open_folder(path: Path, weights: str) -> Checkpoint:
    if (path / ADAPTER_CONFIG).exists():
        return LoraCheckpoint.open(path)
    if modules := module_folders(path):
        return _open_modules(path, modules, weights)
    return _open_model(path, weights)


def _open_modules(path: Path, modules: Sequence[Path], weights: str) -> Checkpoint:
    """A folder of sentence-transformers: the model in it or in its first module, and what the other modules have trained."""
    inside = {module: [entry for entry in module.iterdir() if weights_suffix(entry.name)] for module in modules}
    with_weights = [module for module in modules if inside[module]]
    if any(weights_suffix(entry.name) for entry in path.iterdir() if entry.is_file()):
        model = _open_model(path, weights)
    elif with_weights:
        model = _open_model(with_weights[0], weights)
    else:
        return _open_model(path, weights)
    files: list[TensorFile] = []
    for module in (None, *with_weights):
        one = model if module is None else _open_model(module, weights)
        if not isinstance(one, StoredCheckpoint):
            raise InputError(f"Expected whole weights in the modules of {shown(path)}, got LoRA factors in {shown(one.path)}.")
        if module is not None:
            files += within(one.tensor_files, module, is_model=one.path == model.path)
        elif model.path == path:
            files += one.tensor_files
    found = _stored(path, files)
    found.seen += tuple(seen for seen in model.seen if seen not in found.seen)
    return found


def _open_model(path: Path, weights: str) -> Checkpoint:
    for name in WHOLE_MODELS:
        if (path / name).exists():
            return _open_inside(path, path / name, weights)
    inside = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    indexes = [entry for entry in inside if entry.name.endswith(SAFETENSORS_SUFFIX + INDEX_SUFFIX)]
    if len(indexes) == 1:
        return _open_index(path, indexes[0])
    if len(indexes) > 1:
        raise InputError(f"Expected one shard index in {shown(path)}, found {_listed(indexes)}: name one of them.")
    shards = [entry for entry in inside if entry.suffix == SAFETENSORS_SUFFIX]
    if len(shards) == 1:
        return _open_inside(path, shards[0], weights)
    if shards:
        return _open_shards(path, shards)
    for name in OLD_MODELS:
        if (path / name).exists():
            return _open_inside(path, path / name, weights)
    state_dicts = [entry for entry in inside if weights_suffix(entry.name) in STATE_DICT_SUFFIXES]
    if len(state_dicts) == 1:
        return _open_inside(path, state_dicts[0], weights)
    if state_dicts:
        raise InputError(f"Expected one state dict in {shown(path)}, found {_listed(state_dicts)}: name one of them.")
    what = f"found {_listed(inside)}" if inside else "the folder is empty"
    raise InputError(f"Expected weights ({SAFETENSORS_SUFFIX}, .pt, .pth, .bin or .ckpt) in {shown(path)}: {what}.")


def _open_inside(folder: Path, file: Path, weights: str) -> Checkpoint:
    """The checkpoint of one file, named after the folder that the user gave."""
    if file.name.endswith(INDEX_SUFFIX):
        return _open_index(folder, file)
    opened = _tensor_file(checked_file(file), weights)
    if isinstance(opened, SafetensorsFile) and (dialect := form_of(opened.infos)):
        return LoraCheckpoint.of_file(opened, dialect)
    return _stored(folder, [opened])


def _open_index(path: Path, index: Path) -> Checkpoint:
    """The shards that an index names, and of them the tensors that it lists."""
    seen = SeenFile.of(index)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"Expected a shard index with a weight_map, got {shown(index)}.")
    shards: dict[str, TensorFile] = {}
    for name in sorted({str(shard) for shard in weight_map.values()}):
        if Path(name).name != name or "\\" in name or "\0" in name or name in (".", ".."):
            raise InputError(f"Expected the shards of {shown(index)} in its own folder, got {shown(name)}.")
        if not (index.parent / name).exists():
            raise InputError(f"The shard {shown(name)} that {shown(index)} names is missing.")
        shards[name] = _tensor_file(checked_file(index.parent / name))
    for tensor, shard in weight_map.items():
        if tensor not in shards[str(shard)].infos:
            raise InputError(f"The tensor {shown(tensor)} that {shown(index)} lists is not in {shown(shard)}.")
    listed = sum(len(shard.infos) for shard in shards.values())
    checkpoint = _stored(path, list(shards.values()), [seen])
    if listed > len(weight_map):
        what = f"{len(weight_map)} of the {listed} tensors of its shards"
        checkpoint.notes += (f"{shown(index.name)} lists {what}; all are used.",)
    return checkpoint


def _open_shards(path: Path, shards: Sequence[Path]) -> Checkpoint:
    """All .safetensors files of a folder without an index; numbered ones must be complete."""
    for match in filter(None, (SHARD.search(shard.name) for shard in shards)):
        found = sum(shard.name.endswith(f"-of-{match[2]}{SAFETENSORS_SUFFIX}") for shard in shards)
        if found != int(match[2]):
            raise InputError(f"Expected {int(match[2])} shards in {shown(path)}, found {found}: {_listed(shards)}.")
    return _stored(path, [SafetensorsFile(checked_file(shard)) for shard in shards])


def _stored(path: Path, files: Sequence[TensorFile], extra_files: Sequence[SeenFile] = ()) -> StoredCheckpoint:
    for file in files:
        # The factors alone do not say their scale: they are only read together with their settings.
        if any(is_adapter_key(name) for name in file.infos):
            raise InputError(f"{shown(file.path)} holds LoRA factors: expected an {ADAPTER_CONFIG} beside it.")
    kind = "safetensors" if files[0].path.suffix == SAFETENSORS_SUFFIX else "state_dict"
    return StoredCheckpoint(path, kind, files, extra_files)


def _tensor_file(path: Path, weights: str = LIVE) -> TensorFile:
    if path.suffix == SAFETENSORS_SUFFIX:
        return SafetensorsFile(path)
    if weights_suffix(path.name):
        return StateDictFile(path, weights)
    known = ", ".join((SAFETENSORS_SUFFIX, *STATE_DICT_SUFFIXES))
    raise InputError(f"Expected a checkpoint ({known}, or a folder of them), got {shown(path)}.")


def _listed(paths: Sequence[Path]) -> str:
    names = ", ".join(shown(path.name) for path in paths[:4])
    return names + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
