"""The files below a folder, listed once: bounded in depth and number, and without what may not be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dcmerge.checkpoints import Roots
from dcmerge.checkpoints.paths import checked_path, reason, shown
from dcmerge.checkpoints.roots import what_text_lacks
from dcmerge.errors import InputError
from dcmerge.sets.layouts.found import Skipped

#: Folders below the one that is searched; a download cache needs four.
DEPTH_LIMIT = 8
ENTRY_LIMIT = 20_000
LEAVES = "is a link that leaves the folders that may be read"


@dataclass(frozen=True)
class Folder:
    """One folder: names of its visible files, and its subfolders. ``sealed`` says why its files cannot be read together."""

    path: Path
    files: tuple[str, ...] = ()
    folders: tuple[Folder, ...] = ()
    sealed: str = ""

    def walk(self) -> Iterator[Folder]:
        """This folder and all below it, in the order of their names."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self.files)


@dataclass
class Tree:
    """A folder as it was listed; ``odd`` holds what was left out of the listing and why (hidden files are left out silently).

    With ``roots`` no link out of them is followed, and none to a folder, as everywhere in the app. Without them the files are
    the user's own choice: links to files and to folders elsewhere are followed, each folder once.
    """

    path: Path
    roots: Roots | None = None
    odd: list[Skipped] = field(default_factory=list)
    _entries: int = 0
    _visited: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.path = Path(os.path.abspath(checked_path(self.path)))
        if not self.path.is_dir():
            raise InputError(f"Expected a folder, got the file {shown(self.path)}.")
        if not self.allows(self.path):
            raise InputError(f"{shown(self.path)} does not lie in a folder that may be read.")
        self._real = os.path.realpath(self.path)
        self.folder = self._listed(self.path, 0)
        if self._entries > ENTRY_LIMIT:
            self.odd.append(Skipped(self.path, f"has more than {ENTRY_LIMIT} files, and the rest was not searched"))

    def allows(self, path: Path) -> bool:
        """Whether a path may be read, links in it resolved."""
        return self.roots is None or self.roots.holds(path)

    def _listed(self, path: Path, depth: int) -> Folder:
        self._visited.add(os.path.realpath(path))
        try:
            entries = sorted((entry for entry in os.scandir(path) if not entry.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            self.odd.append(Skipped(path, f"cannot be listed: {reason(error)}"))
            return Folder(path)
        files: list[str] = []
        folders: list[Folder] = []
        sealed = ""
        for entry in entries:
            self._entries += 1
            if self._entries > ENTRY_LIMIT:
                break
            refused = self._refused(entry, depth)
            if refused:
                self.odd.append(Skipped(Path(entry.path), refused))
                # A folder that is one model is opened with all its files, so none of them may lead out.
                sealed = refused if refused == LEAVES else sealed
            elif entry.is_dir():
                folders.append(self._listed(Path(entry.path), depth + 1))
            else:
                files.append(entry.name)
        return Folder(path, tuple(files), tuple(folders), sealed)

    def _refused(self, entry: os.DirEntry[str], depth: int) -> str:
        """Why an entry is left out; nothing where it is not."""
        is_folder = _holds(entry.is_dir)
        if self.roots is not None and (expected := what_text_lacks(entry.name)):
            return f"has a name that is not allowed here (expected {expected})"
        if entry.is_symlink() and (refused := self._refused_link(entry.path, is_folder)):
            return refused
        if is_folder and depth + 1 > DEPTH_LIMIT:
            return f"lies more than {DEPTH_LIMIT} folders deep and was not searched"
        if not is_folder and not _holds(entry.is_file):
            return "is a device, pipe or socket"
        return ""

    def _refused_link(self, path: str, is_folder: bool) -> str:
        if not os.path.exists(path):
            return "is a link that leads nowhere"
        if not self.allows(Path(path)):
            return LEAVES
        if not is_folder:
            return ""
        real = os.path.realpath(path)
        if self.roots is not None:
            return "is a link to a folder, which is not followed"
        known = real in self._visited or real == self._real or real.startswith(self._real + os.sep)
        return "is a link to a folder that is searched anyway" if known else ""


def _holds(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:
        return False
