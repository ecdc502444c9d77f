"""Factors and bases in files, so that a second start computes no SVD: content-addressed, bounded, safe for many processes.

Every entry is one safetensors file named by the hash of everything that decided its content. It appears under its name
only when it is complete and on the disk, so a process that dies leaves at most a hidden part, and two processes that compute
the same entry write the same file. It holds a digest of its tensors, which is compared before anybody uses them: a disk may
have kept the header and lost the numbers. Nothing depends on the cache: what is missing, damaged or cannot be written is
computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dcmerge.checkpoints import LowRank, TensorInfo, write_safetensors
from dcmerge.checkpoints.leftovers import remove_leftovers
from dcmerge.checkpoints.paths import reason
from dcmerge.errors import InputError

#: Where the cache is ("off" for none), and how large it may grow, in bytes.
FOLDER_VARIABLE, SIZE_VARIABLE = "DCMERGE_CACHE", "DCMERGE_CACHE_BYTES"
DEFAULT_BYTES = 4 << 30
#: A part of another machine that nobody has finished after this time (seconds) belongs to a process that has died.
_ABANDONED = 3600
_ENTRY, _PART = ".safetensors", ".part"
_KEPT_AFTER_PRUNING = 0.9
#: Where an entry holds the digest of its tensors.
_DIGEST = "dcmerge.digest"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Usage:
    """What lies in the cache."""

    entries: int
    nbytes: int


class Store:
    """Named groups of tensors in a folder that never grows beyond ``max_bytes``: the least recently used leave first."""

    def __init__(self, folder: str | Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self.folder, self.max_bytes = Path(folder), max_bytes
        self._warned = False
        #: Key -> the state of the file whose digest was compared: once is enough for a process.
        self._verified: dict[str, tuple[int, ...]] = {}

    def get(
        self,
        key: str,
        compute: Callable[[], Mapping[str, Tensor]],
        *,
        fits: Callable[[Mapping[str, Tensor]], bool] = lambda tensors: True,
    ) -> Mapping[str, Tensor]:
        """The tensors under ``key`` (mapped from the file) where they are there and ``fits``, else ``compute()``, kept."""
        known = self.load(key)
        if known is not None and fits(known):
            return known
        tensors = compute()
        self.save(key, tensors)
        return tensors

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors under ``key``, mapped from the file: pages are read when they are used. None where there are none."""
        path = self._path(key)
        try:
            state = _state(path)
            with safe_open(path, framework="pt", device="cpu") as entry:
                told = (entry.metadata() or {}).get(_DIGEST, "")
                tensors = {name: entry.get_tensor(name) for name in entry.offset_keys()}
            if not told:  # of a version that kept no digest: replaced without a word
                return None
            if self._verified.get(key) != state and told != digest_of(tensors):
                raise SafetensorError("its numbers are not those that were kept")
            os.utime(path)
            self._verified[key] = _state(path)
        except (SafetensorError, RuntimeError) as error:  # a disk that lost power half-way, or somebody's editor
            log.warning("removed the damaged cache entry %s (%s); it is computed again", path.name, reason(error))
            with suppress(OSError):
                path.unlink()
            return None
        except (OSError, MemoryError):
            return None
        return tensors

    def save(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under ``key``; a folder that cannot be written is said once and otherwise changes nothing."""
        infos = {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_safetensors(self._path(key), tensors.items(), infos, {_DIGEST: digest_of(tensors)})
            self._prune()
        except (InputError, OSError) as error:
            if not self._warned:
                log.warning("nothing is kept in the cache: %s", error)
            self._warned = True

    def usage(self) -> Usage:
        """How many entries there are, and their bytes."""
        sizes = [size for _, size, _ in self._files(_ENTRY)]
        return Usage(len(sizes), sum(sizes))

    def clear(self) -> Usage:
        """Remove every entry and every part; returns what was removed. Files of other kinds stay."""
        removed = []
        for path, size, _ in self._files(_ENTRY, _PART):
            with suppress(OSError):
                path.unlink()
                removed.append(size)
        return Usage(len(removed), sum(removed))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_ENTRY}"

    def _files(self, *endings: str) -> list[tuple[Path, int, float]]:
        """Path, size and time of last use of each file with one of these endings, the oldest first."""
        found = []
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(endings):
                    with suppress(FileNotFoundError):  # another process pruned it just now
                        status = entry.stat()
                        found.append((Path(entry.path), status.st_size, status.st_mtime))
        return sorted(found, key=lambda file: file[2])

    def _prune(self) -> None:
        """Remove what nobody will finish, and where the entries exceed the bound the least recently used of them."""
        remove_leftovers(self.folder)
        files = self._files(_ENTRY, _PART)
        entries = [file for file in files if file[0].suffix == _ENTRY]
        total = sum(size for _, size, _ in entries)
        leaving = [path for path, _, begun in files if path.suffix == _PART and time.time() - begun > _ABANDONED]
        target = _KEPT_AFTER_PRUNING * self.max_bytes if total > self.max_bytes else total
        for path, size, _ in entries:
            if total <= target:
                break
            leaving.append(path)
            total -= size
        for path in leaving:
            with suppress(FileNotFoundError):
                path.unlink()


def default_store() -> Store | None:
    """The user's cache: the folder of ``DCMERGE_CACHE``, else ``dcmerge`` in the user's cache folder; None for "off".

    Raises InputError where ``DCMERGE_CACHE_BYTES`` is not a number of bytes.
    """
    folder = os.environ.get(FOLDER_VARIABLE, "")
    if folder.lower() == "off":
        return None
    if not folder:
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dcmerge")
    size = os.environ.get(SIZE_VARIABLE, str(DEFAULT_BYTES))
    if not size.isdecimal():
        raise InputError(f"{SIZE_VARIABLE}: expected a number of bytes, got {size!r}")
    return Store(folder, int(size))


def _state(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over the names, shapes, dtypes and bytes of tensors, in the order of their names."""
    names = sorted(tensors)
    return content_key(names, (tensors[name] for name in names))


def content_key(parts: Iterable[str], tensors: Iterable[Tensor | LowRank]) -> str:
    """SHA-256 (hex) over texts, and over shapes, dtypes and bytes of tensors."""
    digest = hashlib.sha256("\n".join(parts).encode())
    for tensor in tensors:
        for part in (tensor.left, tensor.right) if isinstance(tensor, LowRank) else (tensor,):
            flat = part.detach().contiguous()
            digest.update(f"\n{tuple(flat.shape)} {flat.dtype}\n".encode())
            digest.update(flat.numpy().data)
    return digest.hexdigest()
