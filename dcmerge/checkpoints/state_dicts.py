"""One PyTorch state dict (.pt, .pth, .bin): ``torch.load(weights_only=True)`` without numbers; those are read when asked for."""

from __future__ import annotations

import io
import os
import pickle
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dcmerge.checkpoints.archives import ZIP_MARK, read_archive
from dcmerge.checkpoints.base import TensorInfo
from dcmerge.checkpoints.paths import STATE_DICT_SIZE_LIMIT, check_name, checked_file, reason, shown, what_it_is
from dcmerge.checkpoints.seen import SeenFile
from dcmerge.errors import InputError, PickledObject

# Training scripts save the weights beside the epoch and the optimizer under one of these names.
NESTED_UNDER = ("state_dict", "model_state_dict", "model", "module", "net", "network", "params")
#: And their moving average beside them, under one of these.
AVERAGED_UNDER = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "model_ema_state_dict", "params_ema", "ema")
WEIGHTS = LIVE, EMA = "live", "ema"
#: Tables within tables: {"ema": {"module": {...}}}. What lies deeper is no training state of any library.
_DEEPEST = 2
# The command reads tensors out of such a file without running it (dcmerge.checkpoints.pickles).
HOW_TO_CONVERT = "python -m dcmerge convert {} NEW.safetensors"
#: As in ``Archive``.
Places = Mapping[int, tuple[int, int]]


class StateDictFile:
    """Names, shapes and dtypes of one file; no handle stays open between calls.

    Attributes:
        seen: the file as it was at the opening; reads of another state are refused.
        infos: name in the file -> TensorInfo, in the file's order.
        notes: what lies beside the tensors and is not read.
        averaged: whether it holds averaged weights (EMA), too; ``weights`` says whether those or the live ones are read.
    """

    def __init__(self, path: Path, weights: str = LIVE) -> None:
        self.path = checked_file(path)
        self.seen = SeenFile.of(self.path)
        size = self.seen.size
        if size > STATE_DICT_SIZE_LIMIT:
            raise InputError(
                f"{shown(self.path)} has {size} bytes, more than the limit of {STATE_DICT_SIZE_LIMIT} for state dicts: "
                "convert it to safetensors, which has no limit."
            )
        loaded, places = _load(self.seen)
        inner, key = averaged_in(loaded)
        self.averaged = key is not None
        chosen = inner if self.averaged and weights == EMA else loaded
        self._tensors, left_out = _tensors_of(chosen, self.path)
        self._starts: dict[str, int] = {}
        self.infos: dict[str, TensorInfo] = {}
        for name, tensor in self._tensors.items():
            check_name(name, self.path)
            self._starts[name] = _checked_start(name, tensor, places, self.seen)
            self.infos[name] = TensorInfo(tuple(tensor.shape), tensor.dtype)
        self.notes: tuple[str, ...] = ()
        left_out = [name for name in left_out if name != key]
        if key is not None:
            which = "the averaged (EMA) ones" if weights == EMA else "the live ones"
            self.notes = (f"{shown(self.path.name)}: it holds live weights and averaged ones ({shown(key)}); {which} are read.",)
        if left_out:
            names = ", ".join(shown(name) for name in left_out[:5]) + (", ..." if len(left_out) > 5 else "")
            self.notes += (f"{shown(self.path.name)}: not tensors of the model, left out: {names}.",)
        self.seen.check()

    def read(self, name: str) -> Tensor:
        """The tensor, contiguous and fresh at every call; InputError where the file is not the one that was opened."""
        return _read(self._tensors[name], self._starts[name], self.seen)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows alone, as fresh: nothing else of the tensor is read."""
        rows = self._tensors[name][start:stop]
        between = int(rows.storage_offset()) - int(self._tensors[name].storage_offset())
        return _read(rows, self._starts[name] + between * rows.dtype.itemsize, self.seen)


def how_to_convert(path: Path) -> str:
    """The command that makes a safetensors file of a pickle."""
    return HOW_TO_CONVERT.format(shlex.quote(shown(path)))


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Every tensor of a small file by name; of a file that is one tensor without a name, "" is its name. Else InputError."""
    seen = SeenFile.of(checked_file(path))
    loaded, places = _load(seen)
    tensors = {"": loaded} if isinstance(loaded, Tensor) else _tensors_of(loaded, seen.path)[0]
    return {name: _read(tensor, _checked_start(name, tensor, places, seen), seen) for name, tensor in tensors.items()}


def _load(seen: SeenFile) -> tuple[object, Places]:
    """What the file holds, its tensors without their numbers (on the device "meta", which has none), and where those are."""
    path = seen.path
    start = bytes(seen.bytes_at(0, min(4, seen.size)).tolist())
    if start != ZIP_MARK:
        if what := what_it_is(path):
            raise InputError(f"Expected a PyTorch state dict, got {shown(path)}, which is {what}.")
        # An old pickle starts with its protocol's mark.
        raise (PickledObject if start.startswith(b"\x80") else InputError)(
            f"Expected a PyTorch state dict, got {shown(path)}, which is damaged, not one, or in a format that is not read "
            f"in place (before PyTorch 1.6, plain pickle); this reads its tensors without running it: {how_to_convert(path)}."
        )
    archive = read_archive(path)
    try:
        loaded = torch.load(io.BytesIO(archive.skeleton), map_location="meta", weights_only=True)
    except Exception as error:  # The reader of a damaged archive fails in many ways, none of them listed anywhere.
        raise _load_error(error, path) from None
    return loaded, archive.places


def _load_error(error: Exception, path: Path) -> InputError:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and found:
        return PickledObject(
            f"Expected a state dict of plain tensors, got a pickled object ({found[1]}) in {shown(path)}, which would "
            f"run code when opened; this reads its tensors without running it: {how_to_convert(path)}."
        )
    damage = reason(error) if not isinstance(error, pickle.UnpicklingError) else "the pickle in it cannot be read"
    return InputError(f"Expected a PyTorch state dict, got {shown(path)}, which is damaged or not one ({damage}).")


def _tensors_of(loaded: object, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the state dict, wherever it is nested, and the names of everything else."""
    left_out: list[str] = []
    for _ in range(_DEEPEST):
        key = nested_in(loaded)
        if key is None or not isinstance(loaded, Mapping):
            break
        left_out += [str(other) for other in loaded if other != key]
        loaded = loaded[key]
    if isinstance(loaded, Tensor):
        raise InputError(f"Expected a state dict of named tensors, got one tensor without a name in {shown(path)}.")
    if not isinstance(loaded, Mapping):
        raise InputError(f"Expected a state dict of named tensors, got a {type(loaded).__name__} in {shown(path)}.")
    tensors = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    left_out += [str(name) for name in loaded if name not in tensors]
    if not tensors:
        raise InputError(f"Expected a state dict of named tensors, got no tensor in {shown(path)}.")
    return tensors, left_out


def nested_in(loaded: object) -> str | None:
    """The key under which the weights lie in a training state; None where it holds them itself, or under no usual name."""
    if not isinstance(loaded, Mapping):
        return None
    return next((key for key in (*NESTED_UNDER, *AVERAGED_UNDER) if isinstance(loaded.get(key), Mapping)), None)


def averaged_in(loaded: object) -> tuple[object, str | None]:
    """The averaged weights beside live ones, and their key; the whole and None where there are none beside them."""
    if not isinstance(loaded, Mapping) or nested_in(loaded) not in NESTED_UNDER:
        return loaded, None
    key = next((key for key in AVERAGED_UNDER if isinstance(loaded.get(key), Mapping)), None)
    return (loaded, None) if key is None else (loaded[key], key)


def _checked_start(name: str, tensor: Tensor, places: Places, seen: SeenFile) -> int:
    """Where in the file a tensor's numbers begin; InputError where they are not all there."""
    plain = tensor.layout == torch.strided and not tensor.is_quantized
    # What torch.load notes of a storage whose numbers it leaves where they are; a tensor that had none has no place.
    place = places.get(getattr(tensor.untyped_storage(), "_checkpoint_offset", -1)) if plain else None
    if place is None:
        raise InputError(f"The tensor {shown(name)} of {shown(seen.path)} is sparse, quantised or without data.")
    first = int(tensor.storage_offset()) * tensor.dtype.itemsize
    # A few bytes repeated by strides of 0 can claim to be terabytes.
    if tensor.nbytes > seen.size or first + _span(tensor) > place[1]:
        raise InputError(f"The tensor {shown(name)} of {shown(seen.path)} claims more bytes than the file has.")
    return place[0] + first


def _span(tensor: Tensor) -> int:
    """How many bytes lie from the first of its numbers to behind the last."""
    if not tensor.numel():
        return 0
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.dtype.itemsize


def _read(tensor: Tensor, start: int, seen: SeenFile) -> Tensor:
    """The numbers of a tensor that has none, contiguous: those of others may lie between them."""
    numbers = seen.bytes_at(start, _span(tensor)).view(tensor.dtype)
    return numbers.as_strided(tensor.shape, tensor.stride()).contiguous() if tensor.numel() else numbers.reshape(tensor.shape)
