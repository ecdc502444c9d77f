"""One PyTorch state dict (.pt, .pth, .bin): ``torch.load(weights_only=True, mmap=True)`` and no other way."""

from __future__ import annotations

import os
import pickle
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dcmerge.checkpoints.base import TensorInfo
from dcmerge.checkpoints.paths import STATE_DICT_SIZE_LIMIT, checked_file, reason, shown
from dcmerge.errors import InputError, PickledObject

# Training scripts save the weights beside the epoch and the optimizer under one of these names.
NESTED_UNDER = ("state_dict", "model_state_dict", "model")
# The command reads tensors out of such a file without running it (dcmerge.checkpoints.pickles).
HOW_TO_CONVERT = "python -m dcmerge convert {} NEW.safetensors"


class StateDictFile:
    """Names, shapes and dtypes of one file; the tensors stay memory-mapped until they are read.

    Attributes:
        infos: name in the file -> TensorInfo, in the file's order.
        notes: what lies beside the tensors and is not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = checked_file(path)
        size = self.path.stat().st_size
        if size > STATE_DICT_SIZE_LIMIT:
            raise InputError(
                f"{shown(self.path)} has {size} bytes, more than the limit of {STATE_DICT_SIZE_LIMIT} for state dicts: "
                "convert it to safetensors, which has no limit."
            )
        self._tensors, left_out = _tensors_of(_load(self.path), self.path)
        self.infos: dict[str, TensorInfo] = {}
        for name, tensor in self._tensors.items():
            _check_plain(name, tensor, size, self.path)
            self.infos[name] = TensorInfo(tuple(tensor.shape), tensor.dtype)
        self.notes: tuple[str, ...] = ()
        if left_out:
            names = ", ".join(shown(name) for name in left_out[:5]) + (", ..." if len(left_out) > 5 else "")
            self.notes = (f"{shown(self.path.name)}: not tensors of the model, left out: {names}.",)

    def read(self, name: str) -> Tensor:
        """A contiguous copy: tensors of a state dict may share memory, and the caller may change what it gets."""
        return self._tensors[name].detach().clone(memory_format=torch.contiguous_format)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows alone, copied as ``read`` does."""
        return self._tensors[name][start:stop].detach().clone(memory_format=torch.contiguous_format)


def how_to_convert(path: Path) -> str:
    """The command that makes a safetensors file of a pickle."""
    return HOW_TO_CONVERT.format(shlex.quote(shown(path)))


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Every tensor of a small file by name; of a file that is one tensor without a name, "" is its name. Else InputError."""
    checked = checked_file(path)
    loaded = _load(checked)
    return {"": loaded} if isinstance(loaded, Tensor) else _tensors_of(loaded, checked)[0]


def _load(path: Path) -> object:
    with open(path, "rb") as file:
        start = file.read(4)
    if not start.startswith(b"PK\x03\x04"):
        # An old pickle starts with its protocol's mark.
        raise (PickledObject if start.startswith(b"\x80") else InputError)(
            f"Expected a PyTorch state dict, got {shown(path)}, which is damaged, not one, or in a format that is not read "
            f"in place (before PyTorch 1.6, plain pickle); this reads its tensors without running it: {how_to_convert(path)}."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # The reader of a damaged archive fails in many ways, none of them listed anywhere.
        raise _load_error(error, path) from None


def _load_error(error: Exception, path: Path) -> InputError:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and found:
        return PickledObject(
            f"Expected a state dict of plain tensors, got a pickled object ({found[1]}) in {shown(path)}, which would "
            f"run code when opened; this reads its tensors without running it: {how_to_convert(path)}."
        )
    if "unable to mmap" in str(error):
        return InputError(f"{shown(path)} does not fit this machine's memory: convert it to safetensors.")
    damage = reason(error) if not isinstance(error, pickle.UnpicklingError) else "the pickle in it cannot be read"
    return InputError(f"Expected a PyTorch state dict, got {shown(path)}, which is damaged or not one ({damage}).")


def _tensors_of(loaded: object, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the state dict, wherever it is nested, and the names of everything else."""
    left_out: list[str] = []
    if isinstance(loaded, Mapping):
        for key in NESTED_UNDER:
            if isinstance(loaded.get(key), Mapping):
                left_out = [str(other) for other in loaded if other != key]
                loaded = loaded[key]
                break
    if isinstance(loaded, Tensor):
        raise InputError(f"Expected a state dict of named tensors, got one tensor without a name in {shown(path)}.")
    if not isinstance(loaded, Mapping):
        raise InputError(f"Expected a state dict of named tensors, got a {type(loaded).__name__} in {shown(path)}.")
    tensors = {name: value for name, value in loaded.items() if isinstance(name, str) and isinstance(value, Tensor)}
    left_out += [str(name) for name in loaded if name not in tensors]
    if not tensors:
        raise InputError(f"Expected a state dict of named tensors, got no tensor in {shown(path)}.")
    return tensors, left_out


def _check_plain(name: str, tensor: Tensor, file_size: int, path: Path) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise InputError(f"The tensor {shown(name)} of {shown(path)} is sparse, quantised or without data.")
    # A few bytes repeated by strides of 0 can claim to be terabytes.
    if tensor.nbytes > file_size:
        raise InputError(f"The tensor {shown(name)} of {shown(path)} claims more bytes than the file has.")
