"""Save tensors one after another: constant memory, and either the whole file appears or nothing.

The safetensors library only saves a dictionary that is complete in memory; it has no streaming save. The format is
simple enough to write here: the header's length (8 bytes, little-endian), the header (JSON), the data without gaps.
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

import torch
from torch import Tensor

from dcmerge.checkpoints.base import TensorInfo
from dcmerge.checkpoints.dtypes import CODES
from dcmerge.checkpoints.leftovers import part_name
from dcmerge.checkpoints.paths import reason, shown
from dcmerge.errors import InputError

# The safetensors library refuses to open a file with a longer header.
HEADER_LIMIT = 100_000_000
#: A tensor under its name, or some rows of it with the place of the first.
Piece = tuple[str, Tensor] | tuple[str, Tensor, int | None]
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Iterable[Piece],
    infos: Mapping[str, TensorInfo],
    metadata: Mapping[str, str] | None = None,
    *,
    durable: bool = True,
) -> None:
    """Write ``tensors`` as they come to a safetensors file at ``path``, atomically.

    The data lies in the order of ``infos``, wider dtypes first (readers map tensors in place, which needs aligned
    addresses); tensors may come in any order. They go to a hidden file in the same folder, which is flushed to the
    disk and then renamed: an existing file is replaced in one step, and after any failure, the iterable's own and a
    cancellation included, it is as it was and nothing is left behind.

    Args:
        path: the target; its folder must exist.
        tensors: (name, tensor) pairs, exactly those of ``infos``. On any device, of any memory layout. A third part is the first
            row, where a tensor comes some rows at a time.
        infos: name -> shape and dtype, which is all the header needs.
        metadata: free text; ``format: pt``, which other libraries ask for, is added.
        durable: flush to the disk, so that the file outlives a loss of power. A kill it outlives in any case.

    Raises:
        InputError: the file cannot be written: no such folder, no permission, disk full.
        ValueError: a tensor is missing, extra, doubled, or differs from its info. This is a bug, not bad input.
    """
    with SafetensorsWriter(path, infos, metadata, durable=durable) as file:
        for piece in tensors:
            file.put_piece(piece)
            del piece  # before the next one is made: together they would be the peak of the memory


class SafetensorsWriter:
    """The same for whoever has several files open: ``with SafetensorsWriter(path, infos) as file: file.put(name, tensor)``.

    The file appears, whole, when the block ends without an exception; otherwise nothing is left behind.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        infos: Mapping[str, TensorInfo],
        metadata: Mapping[str, str] | None = None,
        *,
        durable: bool = True,
    ) -> None:
        self._target, self._durable = Path(path), durable
        self._metadata = {"format": "pt", **(metadata or {})}
        self._header, self._starts = _layout(infos, self._metadata)
        self._infos, self._missing = infos, dict(infos)
        #: How many rows of a tensor have come that comes in parts.
        self._rows: dict[str, int] = {}
        _check_target(self._target, len(self._header) + sum(info.nbytes for info in infos.values()))
        self._temporary = self._target.with_name(part_name(self._target.name))

    def __enter__(self) -> Self:
        self._file = _create(self._temporary, self._target)
        try:
            _put(self._file, self._target, 0, memoryview(self._header))
        except BaseException:
            self._discard()
            raise
        return self

    def put(self, name: str, tensor: Tensor, row: int | None = None) -> None:
        """One of ``infos``, once; with ``row`` its rows from there on, from the top to the bottom.

        Raises ValueError otherwise, and InputError where the disk does not take it.
        """
        if name not in self._missing:
            raise ValueError(f"the tensor {name} came {'twice' if name in self._infos else 'but is not in infos'}")
        info, first = self._missing[name], row or 0
        expected = info.shape if row is None else (tensor.shape[0], *info.shape[1:])
        if tuple(tensor.shape) != expected or tensor.dtype != info.dtype:
            got = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ValueError(f"the tensor {name} was announced as {info.shape} {info.dtype} and came as {got}")
        if self._rows.get(name, 0) != first or (row is not None and first + tensor.shape[0] > info.shape[0]):
            raise ValueError(f"the tensor {name} was to go on at row {self._rows.get(name, 0)}, and row {first} came")
        place = self._starts[name] + (first * info.nbytes // info.shape[0] if first else 0)
        _put(self._file, self._target, place, _bytes(tensor))
        self._rows[name] = first + tensor.shape[0] if row is not None else 0
        if row is None or self._rows[name] == info.shape[0]:
            del self._missing[name]

    def put_piece(self, piece: Piece) -> None:
        """``put`` of what comes in one."""
        if len(piece) == 2:
            self.put(piece[0], piece[1])
        else:
            self.put(piece[0], piece[1], piece[2])

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return self._discard()
        try:
            with self._file:
                self._finish()
                if self._durable:
                    _flush(self._file, self._target)
            _rename(self._temporary, self._target, self._durable)
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        self._file.close()
        with suppress(OSError):
            self._temporary.unlink()

    def _finish(self) -> None:
        if self._missing:
            raise ValueError(f"{len(self._missing)} tensors never came, the first is {next(iter(self._missing))}")


class GrowingWriter(SafetensorsWriter):
    """A file of tensors (at most 4-D, of one dtype) whose shapes are known only as they come, in any order.

    The header, which comes first in the file, is written last, into room for the longest that it could get.
    """

    def __init__(
        self, path: str | os.PathLike[str], names: Iterable[str], dtype: torch.dtype, metadata: Mapping[str, str]
    ) -> None:
        longest = dict.fromkeys(names, TensorInfo((10**9, 10**9), dtype))
        super().__init__(path, {}, metadata)
        self._header, _ = _layout(longest, self._metadata)
        self._end, self._missing, self._dtype = len(self._header), longest, dtype
        self._infos = {}

    def put(self, name: str, tensor: Tensor, row: int | None = None) -> None:
        if row is not None:
            raise ValueError(f"the tensor {name} comes whole, as its shape is not known before, got rows of it")
        self._starts[name], self._missing[name] = self._end, TensorInfo(tuple(tensor.shape), self._dtype)
        super().put(name, tensor)
        self._infos[name] = TensorInfo(tuple(tensor.shape), self._dtype)
        self._end += self._infos[name].nbytes

    def _finish(self) -> None:
        super()._finish()
        header, _ = _layout(self._infos, self._metadata, len(self._header))
        _put(self._file, self._target, 0, memoryview(header))


def _layout(infos: Mapping[str, TensorInfo], metadata: Mapping[str, str], least: int = 8) -> tuple[bytes, dict[str, int]]:
    """The header's bytes, at least so many, and the position of each tensor in the file."""
    if "__metadata__" in infos:
        raise ValueError("a tensor cannot be called __metadata__")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(f"metadata is text, got {key!r}: {type(value).__name__}")
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    starts: dict[str, int] = {}
    end = 0
    for name, info in sorted(infos.items(), key=lambda item: -item[1].dtype.itemsize):
        if info.dtype not in CODES:
            raise ValueError(f"safetensors has no dtype for {info.dtype} ({name})")
        starts[name] = end
        end += info.nbytes
        offsets = [starts[name], end]
        entries[name] = {"dtype": CODES[info.dtype], "shape": list(info.shape), "data_offsets": offsets}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(least - 8) + b" " * (-max(len(text), least - 8) % 8)
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"a header of {len(text)} bytes is longer than readers accept ({HEADER_LIMIT})")
    header = struct.pack("<Q", len(text)) + text
    return header, {name: len(header) + start for name, start in starts.items()}


def _check_target(target: Path, nbytes: int) -> None:
    """Refuse before hours of work what cannot be written after them."""
    if "\0" in str(target) or not target.name:
        raise InputError(f"Expected the path of a file to write, got {shown(target)!r}.")
    try:
        if not target.parent.is_dir():
            raise InputError(f"Cannot write {shown(target)}: there is no folder {shown(target.parent)}.")
        if target.exists() and not target.is_file():
            raise InputError(f"Cannot write {shown(target)}: it exists and is not a file.")
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise _write_error(error, target) from None
    if nbytes > free:
        raise InputError(f"Cannot write {shown(target)}: it needs {nbytes} bytes and the disk has {free} left.")


def _create(temporary: Path, target: Path) -> BinaryIO:
    try:
        # Not tempfile: its files are readable by their owner only, and stay so after the renaming.
        return open(temporary, "xb", buffering=0)
    except OSError as error:
        raise _write_error(error, target) from None


def _flush(file: BinaryIO, target: Path) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        raise _write_error(error, target) from None


def _bytes(tensor: Tensor) -> memoryview:
    """The tensor's memory, row-major; no copy where it lies so already."""
    flat = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _put(file: BinaryIO, target: Path, position: int, data: memoryview) -> None:
    try:
        file.seek(position)
        while data:
            data = data[file.write(data) :]
    except OSError as error:
        raise _write_error(error, target) from None


def _write_error(error: OSError, target: Path) -> InputError:
    if error.errno in DISK_FULL:
        return InputError(f"Cannot write {shown(target)}: the disk is full; nothing was kept of it.")
    return InputError(f"Cannot write {shown(target)}: {reason(error)}.")


def _rename(temporary: Path, target: Path, durable: bool) -> None:
    try:
        os.replace(temporary, target)
    except OSError as error:
        raise _write_error(error, target) from None
    if not durable:
        return
    # The name itself is on the disk only after its folder is flushed; not every system lets one open a folder.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
