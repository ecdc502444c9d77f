"""What a checkpoint is, from its headers: names, shapes and settings, remembered as long as its files stay as they are."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import open_checkpoint
from dcmerge.checkpoints.archives import read_pickle
from dcmerge.checkpoints.paths import read_json, reason
from dcmerge.checkpoints.suffixes import STATE_DICT_SUFFIXES, weights_suffix
from dcmerge.errors import InputError, PickledObject

Shape = tuple[int, ...]
_PROBES, _PROBE_BYTES = 16, 1 << 16
#: What a state dict's pickle names: https://docs.pytorch.org/docs/stable/notes/serialization.html
_TENSOR_GLOBALS = re.compile(
    rb"torch\._utils\n(_rebuild_tensor_v2|_rebuild_parameter)|torch\n(\w+Storage|Size)|collections\nOrderedDict"
)
#: Bounded, so that a pickle of one long text takes no longer than any other.
_GLOBAL = re.compile(rb"c([A-Za-z_][\w.]{0,99}\n[A-Za-z_]\w{0,99})\n")
#: Of a state dict a pickle of names and shapes has some kB; one of more than this is opened, not glanced at.
_GLANCE_BYTES = 16 << 20


@dataclass
class Watch:
    """What a process that is watched over (``apart``) sets: ``before`` hears of each path before the work on it.

    ``refused``: (path, state) of files that took more than their limits, and why. They are not read again.
    """

    before: Callable[[Path], None] = lambda path: None
    refused: dict[tuple[str, str], str] = field(default_factory=dict)


watch = Watch()


class Shapes(dict[str, Shape]):
    """Names and shapes; checkpoints of one model share the object, which is compared by identity where it is remembered."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] (the stubs: no dict has a hash)
        return object.__hash__(self)


@dataclass(frozen=True, eq=False)
class Peek:
    """Names and shapes as the checkpoint gives them, or the reason why it cannot be opened.

    ``size`` is what its files take on disk in bytes; ``files`` are those that are read; ``pickled`` is whether it holds a
    module instead of tensors.
    """

    kind: str = ""
    shapes: Shapes = field(default_factory=Shapes)
    size: int = 0
    files: tuple[Path, ...] = ()
    error: str = ""
    pickled: bool = False


def peek(path: Path) -> Peek:
    """The headers of a file or folder; never raises for one that cannot be read."""
    return _peek(str(path), _signature(path))


@lru_cache(maxsize=4096)
def _peek(path: str, signature: tuple) -> Peek:
    if (why := watch.refused.get((path, _digest(signature)))) is not None:
        return Peek(error=why, size=_size(Path(path)))
    watch.before(Path(path))
    try:
        opened = open_checkpoint(path)
        shapes = _shared(tuple((name, info.shape) for name, info in opened.infos.items()))
        size = sum(file.stat().st_size for file in opened.files)
        return Peek(opened.kind, shapes, size, opened.files)
    except PickledObject as error:
        return Peek(error=str(error), pickled=True, size=_size(Path(path)))
    except InputError as error:
        return Peek(error=str(error), size=_size(Path(path)))
    except MemoryError:
        return Peek(error="reading it takes more memory than there is", size=_size(Path(path)))
    except Exception as error:  # a search goes on, whatever one file makes of a reader
        return Peek(error=f"it cannot be read ({reason(error)})", size=_size(Path(path)))


@lru_cache(maxsize=256)
def _shared(items: tuple[tuple[str, Shape], ...]) -> Shapes:
    return Shapes(items)


def glance(path: Path) -> Peek:
    """Like ``peek``, but of a state dict that looks sound only kind and size, in a tenth of the time.

    PyTorch's own reader takes 25 ms for 150 tensors. Here the pickle is not run but searched for names of anything that is no
    tensor; with one of those, or damage, the reader decides. It is the one that opens the file in the end.
    """
    return _glance(str(path), _signature(path)) if weights_suffix(path.name) in STATE_DICT_SUFFIXES else peek(path)


@lru_cache(maxsize=4096)
def _glance(path: str, signature: tuple) -> Peek:
    if (path, _digest(signature)) in watch.refused:
        return peek(Path(path))
    watch.before(Path(path))
    try:
        names = _GLOBAL.findall(read_pickle(Path(path), _GLANCE_BYTES))
    except InputError:
        return peek(Path(path))
    if not names or not all(map(_TENSOR_GLOBALS.fullmatch, names)):
        return peek(Path(path))
    return Peek("state_dict", size=_size(Path(path)), files=(Path(path),))


def settings(path: Path) -> dict[str, Any]:
    """A JSON file of settings; empty where there is none, or it is damaged (opening the checkpoint then says so)."""
    try:
        return dict(_settings(str(path), _signature(path))) if path.is_file() else {}
    except OSError:
        return {}


@lru_cache(maxsize=2048)
def _settings(path: str, signature: tuple) -> dict[str, Any]:
    try:
        return read_json(path)
    except InputError:
        return {}


def _signature(path: Path) -> tuple:
    """Changes when the file, or a file directly in the folder, does."""
    try:
        files = sorted(entry.path for entry in os.scandir(path)) if path.is_dir() else [str(path)]
        stats = [(file, os.stat(file)) for file in files if os.path.exists(file)]
    except OSError:
        return ()
    return tuple((file, status.st_size, status.st_mtime_ns) for file, status in stats)


def signature_text(path: Path) -> str:
    """The same in some characters."""
    return _digest(_signature(path))


def _digest(signature: tuple) -> str:
    return hashlib.sha256(repr(signature).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def same_content(paths: Iterable[Path]) -> bool:
    """Whether files hold the same tensors, without reading them: by the checksums in PyTorch's archives.

    Of other files, names, shapes, size and samples of the bytes are compared.
    """
    seen = {_content(path) for path in paths}
    return len(seen) <= 1


def _content(path: Path) -> object:
    try:
        with zipfile.ZipFile(path) as archive:
            # The archive's inner folder is called after the file; what is in data/ are the tensors.
            stored = [(i.filename.partition("/")[2], i.file_size, i.CRC) for i in archive.infolist()]
        return tuple(sorted(entry for entry in stored if entry[0].startswith("data/")))
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return tuple(peek(path).shapes.items()), _samples(path)


def _samples(path: Path) -> object:
    size = path.stat().st_size
    with open(path, "rb") as file:
        found = []
        for probe in range(_PROBES):
            file.seek(max(0, (size - _PROBE_BYTES) * probe // (_PROBES - 1)))
            found.append(file.read(_PROBE_BYTES))
    return size, tuple(map(hash, found))
