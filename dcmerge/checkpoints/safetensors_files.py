"""One safetensors file, read through the safetensors library: its header at once, a tensor when it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dcmerge.checkpoints.base import TensorInfo
from dcmerge.checkpoints.dtypes import DTYPES
from dcmerge.checkpoints.paths import checked_file, reason, shown
from dcmerge.errors import InputError

#: Up to this size a tensor is copied from its place in the file: opening the file again takes longer than that.
_COPIED = 4 << 20


class SafetensorsFile:
    """Names, shapes and dtypes of one file; no handle stays open between calls.

    Attributes:
        infos: name in the file -> TensorInfo, in the order in which the data lies.
        metadata: the header's free text.
    """

    def __init__(self, path: Path) -> None:
        self.path = checked_file(path)
        self.notes: tuple[str, ...] = ()
        self.infos: dict[str, TensorInfo] = {}
        self._starts: dict[str, int] = {}
        self._stamp = _stamp(self.path)
        with _open(self.path) as file:
            start = _data_start(self.path)
            self.metadata: dict[str, str] = file.metadata() or {}
            for name in file.offset_keys():
                header = file.get_slice(name)
                code = header.get_dtype()
                if code not in DTYPES:
                    raise InputError(
                        f"The tensor {shown(name)} of {shown(self.path)} has the dtype {shown(code)}, "
                        f"expected one of {', '.join(DTYPES)}."
                    )
                self.infos[name] = TensorInfo(tuple(header.get_shape()), DTYPES[code])
                # The library refuses a file with gaps, so that each tensor begins where the one before it ends.
                self._starts[name], start = start, start + self.infos[name].nbytes

    def read(self, name: str) -> Tensor:
        """The tensor, fresh: a small one is copied, a large one mapped where it can be, its pages read when they are used.

        The mapping is private, so a change of the tensor never reaches the file.
        """
        return self._read(name, self.infos[name], 0)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some rows alone, as fresh as the whole: nothing else of the tensor is read."""
        whole = self.infos[name]
        info = TensorInfo((stop - start, *whole.shape[1:]), whole.dtype)
        return self._read(name, info, start)

    def _read(self, name: str, info: TensorInfo, first: int) -> Tensor:
        """The rows from ``first`` on that make a tensor of this shape."""
        if info.nbytes <= _COPIED and (tensor := self._copied(name, info, first)) is not None:
            return tensor
        try:
            with _open(checked_file(self.path), info.nbytes) as file:
                tensor = file.get_tensor(name)
        except (SafetensorError, RuntimeError) as error:
            raise InputError(f"Cannot read {shown(name)} from {shown(self.path)}: {reason(error)}.") from None
        whole = self.infos[name]
        if tuple(tensor.shape) != whole.shape or tensor.dtype != whole.dtype:
            raise InputError(f"{shown(self.path)} has changed since it was opened: {shown(name)} is another tensor.")
        return tensor if info.shape == whole.shape else tensor[first : first + info.shape[0]]

    def _copied(self, name: str, info: TensorInfo, first: int) -> Tensor | None:
        """The tensor's bytes from where they were at the opening; None where the file is not the same any more."""
        flat = torch.empty(info.nbytes, dtype=torch.uint8)
        try:
            if _stamp(self.path) != self._stamp:
                return None
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self._starts[name] + (first * info.nbytes // info.shape[0] if first else 0))
                if info.nbytes and file.readinto(flat.numpy().data) != info.nbytes:
                    return None
        except OSError:
            return None
        return flat.view(info.dtype).reshape(info.shape)


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _data_start(path: Path) -> int:
    """Where the data of a complete safetensors file begins: behind the header's length and the header."""
    with open(path, "rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _open(path: Path, nbytes: int = 0) -> safe_open:
    """safe_open with every failure as one sentence.

    torch maps files privately and writable, which Linux refuses for a file larger than its memory and swap together.
    Then the library's other backend reads just the tensors that are asked for.
    """
    try:
        try:
            return safe_open(path, framework="pt", device="cpu")
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            _refuse_more_than_memory(path, nbytes)
            return safe_open(path, framework="pt", device="cpu", backend="pread")
    except SafetensorError as error:
        size = path.stat().st_size
        raise InputError(
            f"Expected a complete safetensors file, got {shown(path)} ({size} bytes), which is damaged or not one "
            f"({reason(error)})."
        ) from None
    except (OSError, RuntimeError) as error:
        raise InputError(f"Cannot open {shown(path)}: {reason(error)}.") from None


def _refuse_more_than_memory(path: Path, nbytes: int) -> None:
    # A failed allocation inside the library's pread backend ends the whole process: ask before.
    if hasattr(os, "sysconf") and nbytes > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise InputError(f"A tensor of {shown(path)} needs {nbytes} bytes, more than this machine's memory.")
