"""Hidden parts of what is being written, and the removal of those whose process was killed before it could do it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: Processes have numbers of their own on each machine, and a folder may be shared by several.
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_PART = re.compile(rf"\..*\.(\d+)\.{_MACHINE}[0-9a-f]{{16}}\.part")
#: Below a root so many folders are looked into.
_MOST_FOLDERS = 5_000


@dataclass(frozen=True)
class Removed:
    """What was removed: how many parts, and their bytes."""

    count: int = 0
    nbytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.count + other.count, self.nbytes + other.nbytes)

    def note(self, where: object) -> str:
        """One sentence; empty where nothing was removed."""
        parts = f"{self.count} unfinished part{'s' if self.count > 1 else ''}"
        return f"removed {parts} ({self.nbytes / 1e6:.1f} MB) of merges that were killed, from {where}" if self.count else ""


def part_name(name: str) -> str:
    """A hidden name for what becomes ``name`` when it is complete; it tells whose it is."""
    return f".{name[:100]}.{os.getpid()}.{_MACHINE}{secrets.token_hex(8)}.part"


def remove_leftovers(folder: Path, *, below: bool = False) -> Removed:
    """Remove parts directly in a folder, or anywhere ``below`` it, whose process on this machine is gone. Raises nothing."""
    found = Removed()
    for place in _folders(folder) if below else [folder]:
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                match = _PART.fullmatch(entry.name)
                if match and not entry.is_symlink() and not _lives(int(match[1])):
                    found += _removed(Path(entry.path))
    return found


def left_by_others(folder: Path, name: str) -> list[Path]:
    """Parts in a folder of what was to become ``name`` whose process on this machine is gone, the newest first."""
    found: list[tuple[float, Path]] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _PART.fullmatch(entry.name)
            is_of_it = match and entry.name.startswith(f".{name[:100]}.{match[1]}.")
            if match and is_of_it and not entry.is_symlink() and not _lives(int(match[1])):
                found.append((entry.stat().st_mtime, Path(entry.path)))
    return [path for _, path in sorted(found, reverse=True)]


def _folders(folder: Path) -> Iterator[str]:
    for count, (place, inner, _) in enumerate(os.walk(folder)):
        inner[:] = [name for name in inner if not name.startswith(".")]
        if count >= _MOST_FOLDERS:
            return
        yield place


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _removed(path: Path) -> Removed:
    size = 0
    with suppress(OSError):
        files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return Removed(1, size)
    return Removed()
