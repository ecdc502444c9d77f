"""One safetensors file: its header at once, through the safetensors library, a tensor's bytes when it is asked for."""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dcmerge.checkpoints.base import TensorInfo
from dcmerge.checkpoints.dtypes import DTYPES
from dcmerge.checkpoints.paths import check_name, checked_file, reason, shown, what_it_is
from dcmerge.checkpoints.seen import SeenFile
from dcmerge.errors import InputError

#: No weight has more dimensions, and libraries count in 64 bits: what exceeds either is no tensor that one could compute with.
_MOST_DIMENSIONS, _MOST_BYTES = 32, 1 << 62
#: Tensors of so many bytes are read with their neighbours, so many bytes at once.
_SMALL, _WINDOW = 1 << 12, 1 << 18


class SafetensorsFile:
    """Names, shapes and dtypes of one file; no handle stays open between calls.

    Attributes:
        seen: the file as it was at the opening; reads of another state are refused.
        infos: name in the file -> TensorInfo, in the order in which the data lies.
        metadata: the header's free text.
    """

    def __init__(self, path: Path) -> None:
        self.path = checked_file(path)
        self.seen = SeenFile.of(self.path)
        self.notes: tuple[str, ...] = ()
        self.infos: dict[str, TensorInfo] = {}
        self._starts: dict[str, int] = {}
        #: Where the last small tensors were read from, and those bytes.
        self._window: tuple[int, bytes] | None = None
        with _open(self.path) as file:
            start = _data_start(self.seen)
            self.metadata: dict[str, str] = file.metadata() or {}
            for name in file.offset_keys():
                header = file.get_slice(name)
                self.infos[name] = _info(name, header.get_shape(), header.get_dtype(), self.path)
                # The library refuses a file with gaps, so that each tensor begins where the one before it ends.
                self._starts[name], start = start, start + self.infos[name].nbytes
        self.seen.check()

    def read(self, name: str) -> Tensor:
        """The tensor, fresh at every call; InputError where the file is not the one that was opened."""
        return self._read(name, self.infos[name], 0)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows alone, as fresh as the whole: nothing else of the tensor is read."""
        whole = self.infos[name]
        info = TensorInfo((stop - start, *whole.shape[1:]), whole.dtype)
        return self._read(name, info, start)

    def _read(self, name: str, info: TensorInfo, first: int) -> Tensor:
        """The rows from ``first`` on that make a tensor of this shape."""
        nbytes = info.nbytes
        start = self._starts[name] + (first * nbytes // info.shape[0] if first else 0)
        if 0 < nbytes <= _SMALL:
            small = torch.frombuffer(self._small(start, nbytes), dtype=info.dtype)
            return small if len(info.shape) == 1 else small.reshape(info.shape)
        return self.seen.bytes_at(start, nbytes).view(info.dtype).reshape(info.shape)

    def _small(self, start: int, nbytes: int) -> bytearray:
        """``bytes_at`` of a small tensor, with its neighbours: files of 100,000 tensors are not opened as often."""
        window = self._window
        if window is None or not window[0] <= start <= start + nbytes <= window[0] + len(window[1]):
            read = self.seen.bytes_at(start, max(nbytes, min(_WINDOW, self.seen.size - start)))
            self._window = window = start, read.numpy().tobytes()
        else:
            self.seen.check_again()
        place = start - window[0]
        return bytearray(window[1][place : place + nbytes])


def _info(name: str, shape: list[int], code: str, path: Path) -> TensorInfo:
    """What the header says of a tensor; InputError where there can be no such tensor."""
    check_name(name, path)
    if code not in DTYPES:
        raise InputError(
            f"The tensor {shown(name)} of {shown(path)} has the dtype {shown(code)}, expected one of {', '.join(DTYPES)}."
        )
    # A dimension of 0 makes any other fit into no bytes at all.
    if len(shape) > _MOST_DIMENSIONS or prod(max(n, 1) for n in shape) * DTYPES[code].itemsize > _MOST_BYTES:
        told = f"{len(shape)} dimensions" if len(shape) > _MOST_DIMENSIONS else f"the shape {shape}"
        raise InputError(f"The tensor {shown(name)} of {shown(path)} has {told}, expected one that fits into a memory.")
    return TensorInfo(tuple(shape), DTYPES[code])


def _data_start(seen: SeenFile) -> int:
    """Where the data of a complete safetensors file begins: behind the header's length and the header."""
    return 8 + int.from_bytes(bytes(seen.bytes_at(0, 8).tolist()), "little")


def _open(path: Path) -> safe_open:
    """safe_open with every failure as one sentence. Its other backend maps, which ``seen`` forbids."""
    try:
        return safe_open(path, framework="pt", device="cpu", backend="pread")
    except SafetensorError as error:
        if what := what_it_is(path):
            raise InputError(f"Expected a safetensors file, got {shown(path)}, which is {what}.") from None
        size = path.stat().st_size
        raise InputError(
            f"Expected a complete safetensors file, got {shown(path)} ({size} bytes), which is damaged or not one "
            f"({reason(error)})."
        ) from None
    except (OSError, RuntimeError, MemoryError) as error:
        raise InputError(f"Cannot open {shown(path)}: {reason(error)}.") from None
