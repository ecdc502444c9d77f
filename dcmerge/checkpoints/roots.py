"""Which files the app may read: those below the folders it was started with, whatever text comes from a browser."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from dcmerge.checkpoints.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from dcmerge.checkpoints.modules import MODULES, module_folders
from dcmerge.checkpoints.opening import INDEX_SUFFIX, WHOLE_MODELS
from dcmerge.checkpoints.paths import checked_path, reason, shown
from dcmerge.checkpoints.suffixes import weights_suffix
from dcmerge.errors import InputError

DRIVE = re.compile(r"[A-Za-z]:")
# A listing is for choosing by eye; a folder of a million files must not hold up the page.
ENTRY_LIMIT = 20_000


class Roots:
    """The folders below which files may be read. A root that does not exist (yet) holds nothing.

    Attributes:
        folders: the roots, absolute, links resolved.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]]) -> None:
        given = [Path(os.path.abspath(folder)) for folder in folders]
        self.folders = tuple(dict.fromkeys(Path(os.path.realpath(folder)) for folder in given))
        # An absolute path may be written through a link that leads to a root: the root as it was given.
        self._spellings = tuple(dict.fromkeys([*given, *self.folders]))

    def resolve(self, text: str) -> Path:
        """The existing file or folder that ``text`` names: below a root, or an absolute path inside one.

        What the text alone gives away (NUL, ``..``, another drive or machine, an absolute path elsewhere) is refused
        before the disk is touched. A relative name is looked for in the roots in their order.

        Raises:
            InputError: nothing is there, it is a device, or it or a link in it leaves the roots.
        """
        candidates = self._candidates(text)
        found = next((candidate for candidate in candidates if os.path.lexists(candidate)), None)
        if found is None:
            raise InputError(f"There is no {shown(text)} below {self._named()}.")
        self._check_inside(found, text)
        # Not the link's target: a download cache links model.safetensors to a file that is named by its hash.
        checked = checked_path(found)
        if checked.is_dir():
            self._check_links(checked, text)
        elif checked.name.endswith(INDEX_SUFFIX) or checked.name in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS):
            self._check_links(checked.parent, str(PurePosixPath(text).parent))
        return checked

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether a path lies below a root when every link in it is followed. It need not exist."""
        return self._holds(Path(os.path.realpath(path)))

    def name_of(self, path: Path) -> str:
        """The name under which :meth:`resolve` finds a path below a root: relative to it, absolute where that is ambiguous."""
        root = next(folder for folder in self.folders if path.is_relative_to(folder))
        name = path.relative_to(root).as_posix()
        # The same name in an earlier root would be found first.
        hidden = any(os.path.lexists(folder / name) for folder in self.folders[: self.folders.index(root)])
        return str(path) if hidden else name

    def subfolders(self, limit: int = 2000) -> tuple[Path, ...]:
        """The roots, and the folders below them in which files lie (at any depth), each root's in order."""
        found = dict.fromkeys(root for root in self.folders if root.is_dir())
        for path in self._walk():
            root = next(folder for folder in self.folders if path.is_relative_to(folder))
            found |= dict.fromkeys(parent for parent in path.parents if parent.is_relative_to(root))
            if len(found) >= limit:
                break
        return tuple(sorted(found, key=lambda path: (not any(path == root for root in self.folders), path)))

    def list(self, pattern: str = "*", limit: int = 500) -> tuple[str, ...]:
        """Names, as :meth:`resolve` takes them, of the files whose name matches a shell pattern; sorted."""
        return self._names((path for path in self._walk() if fnmatchcase(path.name, pattern)), limit)

    def checkpoints(self, limit: int = 500) -> tuple[str, ...]:
        """Names of what :func:`open_checkpoint` is worth trying on: weight files, and folders that are one model."""
        return self._names(_checkpoint_paths(self._walk()), limit)

    def _candidates(self, text: str) -> tuple[Path, ...]:
        expected = what_text_lacks(text)
        if expected:
            raise InputError(f"Expected {expected}, got {shown(text) or 'nothing'}.")
        path = PurePosixPath(text)
        if not path.is_absolute():
            return tuple(folder / path for folder in self.folders)
        if not any(path.is_relative_to(spelling) for spelling in self._spellings):
            raise InputError(f"Expected a path below {self._named()}, got {shown(text)}.")
        return (Path(path),)

    def _check_inside(self, path: Path, text: str) -> None:
        try:
            real = Path(os.path.realpath(path, strict=True))
        except OSError as error:
            raise InputError(f"Cannot open {shown(text)}: {reason(error)}.") from None
        if not self._holds(real):
            raise InputError(f"{shown(text)} is a link that leaves {self._named()}.")

    def _check_links(self, folder: Path, text: str) -> None:
        """A folder's own files are opened with it, so none of them may be a link that leaves the roots."""
        try:
            links = [Path(entry.path) for entry in os.scandir(folder) if entry.is_symlink()]
            modules = module_folders(folder)
        except OSError as error:
            raise InputError(f"Cannot open {shown(text)}: {reason(error)}.") from None
        for link in links:
            self._check_inside(link, f"{text}/{link.name}")
        for module in modules:
            self._check_links(module, f"{text}/{module.name}")

    def _holds(self, real: Path) -> bool:
        return any(real.is_relative_to(folder) for folder in self.folders)

    def _walk(self) -> Iterator[Path]:
        """Files below the roots, hidden ones and those behind links to folders left out."""
        count = 0
        for root in self.folders:
            for folder, subfolders, files in os.walk(root):
                subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
                for name in sorted(files):
                    count += 1
                    if count > ENTRY_LIMIT:
                        return
                    path = Path(folder, name)
                    if name.startswith(".") or what_text_lacks(path.relative_to(root).as_posix()):
                        continue
                    if path.is_file() and self._holds(Path(os.path.realpath(path))):
                        yield path

    def _names(self, paths: Iterable[Path], limit: int) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for path in paths:
            names[self.name_of(path)] = None
            if len(names) >= limit:
                break
        return tuple(sorted(names))

    def _named(self) -> str:
        return ", ".join(shown(folder) for folder in self.folders) or "any root (none was given)"


def what_text_lacks(text: str) -> str:
    """What was expected of a path instead of ``text``, or nothing where the text itself is harmless."""
    if not isinstance(text, str) or not text.strip():
        return "the path of a checkpoint"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        return "a path without control characters"
    if "\\" in text or DRIVE.match(text) or text.startswith("//"):
        return "a path with / between folders and no drive or machine"
    return "a path without .." if ".." in PurePosixPath(text).parts else ""


def _checkpoint_paths(files: Iterable[Path]) -> Iterator[Path]:
    """Each weight file; of a folder that is one model (adapter, shards) only the folder."""
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        by_folder.setdefault(file.parent, []).append(file)
    for folder, inside in by_folder.items():
        names = {file.name for file in inside}
        is_model = any(name in names for name in (ADAPTER_CONFIG, MODULES, *WHOLE_MODELS))
        if is_model or any(name.endswith(INDEX_SUFFIX) for name in names):
            yield folder
        else:
            yield from (file for file in inside if weights_suffix(file.name))
