"""A file in the state in which it was first seen: whoever reads it later gets that state, or one sentence.

A merge opens, examines, hashes and reads its inputs over minutes or hours, and they may be a running training's or an rsync's.
Every read therefore compares what the system says of the open file, before and after, with what it said at the opening. Nothing
is mapped into memory: a mapped file that is cut short ends the whole process, and one that is overwritten changes under the
reader.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from dcmerge.checkpoints.paths import checked_file, reason, shown
from dcmerge.errors import InputError

#: Not waiting: a pipe that has taken the file's place is another file, and not to be waited for.
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_MACHINE_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


@dataclass(frozen=True)
class SeenFile:
    """A path, and what changes when the file behind it is replaced, cut or written to: device, inode, size (bytes), time (ns)."""

    path: Path
    state: tuple[int, int, int, int]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.state[2]

    @classmethod
    def of(cls, path: Path) -> SeenFile:
        """The file as it is now; InputError where it is none that can be read."""
        try:
            return cls(path, _state(os.stat(checked_file(path))))
        except OSError as error:
            raise InputError(f"Cannot read {shown(path)}: {reason(error)}.") from None

    def check(self) -> None:
        """Raises InputError where the path leads to another file now, or to another state of this one."""
        if SeenFile.of(self.path) != self:
            raise self._changed()

    def check_again(self) -> None:
        """``check`` for what is asked thousands of times: one look at the path."""
        try:
            same = _state(os.stat(self.path)) == self.state
        except OSError:
            same = False
        if not same:
            self.check()
            raise self._changed()

    @contextmanager
    def reading(self) -> Iterator[int]:
        """The file's descriptor for the length of a block; InputError where it changed before the block, or within it."""
        try:
            descriptor = os.open(self.path, _READ)
        except OSError as error:
            checked_file(self.path)  # says in its own words what is not there
            raise InputError(f"Cannot read {shown(self.path)}: {reason(error)}.") from None
        try:
            self._check_open(descriptor)
            yield descriptor
            self._check_open(descriptor)
        except OSError as error:
            raise InputError(f"Cannot read {shown(self.path)}: {reason(error)}.") from None
        finally:
            os.close(descriptor)

    def bytes_at(self, start: int, nbytes: int) -> Tensor:
        """Bytes from a place on, (nbytes,) uint8, the caller's own; InputError where they are not those that were seen."""
        found = _memory(nbytes, self.path)
        with self.reading() as descriptor:
            if not _filled(found.numpy().data, descriptor, start):
                raise self._changed()
        return found

    def digest(self) -> str:
        """SHA-256 (hex) of the content, remembered in this process; InputError where it is not the one that was seen."""
        self.check()
        return _digest(self)

    def _check_open(self, descriptor: int) -> None:
        if _state(os.fstat(descriptor)) != self.state:
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(
            f"{shown(self.path)} has changed since it was opened (it was replaced or written to): expected it to stay as it is; "
            "start again once it is complete."
        )


def _state(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _memory(nbytes: int, path: Path) -> Tensor:
    # Some systems promise memory that they do not have, and end whoever uses it: ask before.
    try:
        if _MACHINE_BYTES is None or nbytes <= _MACHINE_BYTES:
            return torch.empty(nbytes, dtype=torch.uint8)
    except RuntimeError:  # what torch says of an allocation that failed
        pass
    raise InputError(f"A tensor of {shown(path)} needs {nbytes} bytes, more than this machine's memory.") from None


def _filled(buffer: memoryview, descriptor: int, start: int) -> bool:
    """Whether the file has bytes for the whole buffer, which they are read into."""
    os.lseek(descriptor, start, os.SEEK_SET)
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        while buffer:
            got = file.readinto(buffer)
            if not got:
                return False
            buffer = buffer[got:]
    return True


@lru_cache(maxsize=4096)
def _digest(seen: SeenFile) -> str:
    with seen.reading() as descriptor, open(descriptor, "rb", buffering=0, closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of a file (hex), remembered in this process as long as the file stays the same."""
    return SeenFile.of(path).digest()
