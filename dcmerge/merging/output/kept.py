"""What a merge has finished, kept beside its target until it ends: after a kill the same command goes on where it was cut off.

A hidden file: one line that says which merge it belongs to, then for each finished parameter a line of JSON and its bytes as they
are written. A merge that ends, well or not, removes it; of one that was killed it stays, is taken over by the next merge with the
same target, and used where that is the same merge.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import torch
from torch import Tensor

from dcmerge.checkpoints import TensorInfo
from dcmerge.checkpoints.leftovers import left_by_others, part_name
from dcmerge.checkpoints.paths import reason, shown
from dcmerge.errors import InputError
from dcmerge.merging.output.rounding import Rounding

#: What the first line says, and the longest line that is read.
_FORM, _LONGEST_LINE = "dcmerge merge 1", 1 << 16
#: A parameter with fewer bytes is merged again as fast.
_WORTH_KEEPING = 1 << 18


@dataclass(frozen=True)
class _Frame:
    """One finished parameter: where its bytes begin in the file, and what was counted when it was merged."""

    start: int
    nbytes: int
    crc: int
    lost: Rounding
    square: float


def claimed(target: Path) -> Path:
    """Where a merge into ``target`` keeps what it has finished: what a killed one left, now this process's, or a new file."""
    folder, name = target.absolute().parent, f"{target.name}.kept"
    own = folder / part_name(name)
    for path in left_by_others(folder, name):
        with suppress(OSError):
            os.rename(path, own)
            break
    return own


class Kept:
    """``with Kept(claimed(target), recipe) as kept:`` gives what the same merge finished before, and takes what is finished now.

    ``recipe`` is the text of the merge's recipe, with the hashes of its inputs: another one is another merge. Whatever goes wrong
    with the file, the merge goes on without it.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self._path = path
        self._first = json.dumps({"form": _FORM, "recipe": hashlib.sha256(recipe.encode()).hexdigest()}).encode() + b"\n"
        self._frames: dict[str, _Frame] = {}
        self._file: BinaryIO | None = None
        self.taken = 0

    def __enter__(self) -> Self:
        with suppress(OSError):
            if self._path.exists():
                self._file = open(self._path, "r+b")
                self._frames, end = _read(self._file, self._first)
                self._file.truncate(end)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence where something was taken over."""
        return (f"took {self.taken} parameters over from the same merge, which was killed before",) if self.taken else ()

    def has(self, name: str, info: TensorInfo) -> bool:
        """Whether a parameter is here whole, as it is written."""
        frame = self._frames.get(name)
        if frame is None or frame.nbytes != info.nbytes:
            return False
        with suppress(OSError):
            return zlib.crc32(self._content(frame)) == frame.crc
        return False

    def get(self, name: str, info: TensorInfo) -> tuple[Tensor, Rounding, float]:
        """The parameter as it is written, what its dtype lost, and its delta's square. Raises InputError where it is gone."""
        frame = self._frames[name]
        try:
            content = self._content(frame)
        except OSError as error:
            raise InputError(f"Cannot read {shown(self._path)}: {reason(error)}.") from None
        self.taken += 1
        return torch.frombuffer(content, dtype=info.dtype).reshape(info.shape), frame.lost, frame.square

    def _content(self, frame: _Frame) -> bytearray:
        assert self._file is not None  # there are frames
        self._file.seek(frame.start)
        return bytearray(self._file.read(frame.nbytes))

    def add(self, name: str, value: Tensor, lost: Rounding, square: float) -> None:
        """Keep a whole parameter that is finished, unless it is small."""
        if value.nbytes < _WORTH_KEEPING or name in self._frames:
            return
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().data
        told = {"name": name, "nbytes": value.nbytes, "crc": zlib.crc32(content), "square": square, "lost": _plain(lost)}
        try:
            if self._file is None:
                self._file = open(self._path, "x+b")  # noqa: SIM115 (closed where the merge ends)
                self._file.write(self._first)
            self._file.seek(0, os.SEEK_END)
            self._file.write(json.dumps(told).encode() + b"\n")
            self._file.write(content)
            self._file.flush()
        except OSError:  # no room: the merge itself may still fit
            self._stop()

    def _stop(self) -> None:
        self._frames = {}
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        with suppress(OSError):
            self._path.unlink()


def _read(file: BinaryIO, first: bytes) -> tuple[dict[str, _Frame], int]:
    """Every whole frame by name, and where the last of them ends; none, and an empty file, of another merge."""
    size = os.fstat(file.fileno()).st_size
    if file.readline(_LONGEST_LINE) != first:
        file.seek(0)
        file.truncate(0)
        file.write(first)
        return {}, len(first)
    frames, end = {}, len(first)
    while line := file.readline(_LONGEST_LINE):
        frame = _frame(line, file.tell())
        if frame is None or frame[1].start + frame[1].nbytes > size:
            break
        frames[frame[0]] = frame[1]
        end = file.seek(frame[1].start + frame[1].nbytes)
    return frames, end


def _frame(line: bytes, start: int) -> tuple[str, _Frame] | None:
    """Name and frame that a line tells of; None of a line that was cut off."""
    try:
        told = json.loads(line)
        lost = Rounding(**{**told["lost"], "dtypes": set(told["lost"]["dtypes"])})
        return told["name"], _Frame(start, told["nbytes"], told["crc"], lost, told["square"])
    except (ValueError, KeyError, TypeError):
        return None


def _plain(lost: Rounding) -> dict[str, Any]:
    return {**asdict(lost), "dtypes": sorted(lost.dtypes)}
