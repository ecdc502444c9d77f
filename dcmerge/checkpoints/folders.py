"""Write a folder of files so that either all of it appears or nothing."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dcmerge.checkpoints.leftovers import part_name
from dcmerge.checkpoints.paths import reason, shown
from dcmerge.errors import InputError


@contextmanager
def new_folder(path: str | os.PathLike[str], *, ours: Callable[[str], bool] | None = None) -> Iterator[Path]:
    """``with new_folder(path) as folder:`` fills a hidden folder beside ``path``, which takes its name when the block ends.

    After any failure, the block's own included, nothing is left behind and what was at ``path`` is as it was. An existing folder
    with something in it is replaced only where ``ours`` is given and true of the name of everything in it ("2_Dense/x.json").

    Raises InputError where the folder cannot be made, or stands for something else.
    """
    target = Path(os.path.abspath(path))
    check_folder(target, ours=ours)
    # What is replaced is no part: whoever finds it after a kill may want it back.
    temporary, old = (
        target.with_name(part_name(target.name)),
        target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.old"),
    )
    try:
        temporary.mkdir()
    except OSError as error:
        raise InputError(f"Cannot write {shown(target)}: {reason(error)}.") from None
    try:
        yield temporary
        _take_place(temporary, target, old)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_folder(path: Path, *, ours: Callable[[str], bool] | None = None) -> None:
    """Refuse before hours of work a folder that could not be written after them; as ``new_folder``."""
    if "\0" in str(path) or not path.name:
        raise InputError(f"Expected the path of a folder to write, got {shown(path)!r}.")
    try:
        if not path.parent.is_dir():
            raise InputError(f"Cannot write {shown(path)}: there is no folder {shown(path.parent)}.")
        if not os.path.lexists(path):
            return
        if path.is_symlink() or not path.is_dir():
            raise InputError(f"Cannot write {shown(path)}: it exists and is not a folder.")
        inside = sorted(entry.name for entry in path.iterdir())
        strange = inside if ours is None else [name for name in _files_below(path) if name.endswith("/") or not ours(name)]
    except OSError as error:
        raise InputError(f"Cannot write {shown(path)}: {reason(error)}.") from None
    if strange:
        what = "exists already" if ours is None else "is not a folder that a merge wrote"
        raise InputError(f"Cannot write {shown(path)}: it {what} (it holds {shown(strange[0])}); expected a new or empty folder.")


def _files_below(path: Path) -> list[str]:
    """Everything in a folder and in the folders in it, "2_Dense/config.json"; of an empty or a deeper folder "name/"."""
    found: list[str] = []
    for entry in path.iterdir():
        within = list(entry.iterdir()) if entry.is_dir() and not entry.is_symlink() else []
        found += [f"{entry.name}/{one.name}{'/' if one.is_dir() else ''}" for one in within] or [
            f"{entry.name}/" if entry.is_dir() else entry.name
        ]
    return sorted(found)


def _take_place(temporary: Path, target: Path, old: Path) -> None:
    try:
        if not target.exists():
            os.rename(temporary, target)
        else:
            os.rename(target, old)
            try:
                os.rename(temporary, target)
            except OSError:
                os.rename(old, target)
                raise
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputError(f"Cannot write {shown(target)}: {reason(error)}.") from None
    with suppress(OSError):  # not every system lets one open a folder
        parent = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def check_text_target(path: Path) -> None:
    """Refuse before the work what could not be written after it; raises InputError."""
    if not path.parent.is_dir():
        raise InputError(f"Cannot write {shown(path)}: there is no folder {shown(path.parent)}.")
    if path.exists() and not path.is_file():
        raise InputError(f"Cannot write {shown(path)}: it exists and is not a file.")


def write_text(path: Path, text: str) -> None:
    """A small text (UTF-8), as ``write_bytes``."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """A small file, in a temporary one beside the target, flushed and renamed; InputError leaves nothing behind."""
    check_text_target(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise InputError(f"Cannot write {shown(path)}: {reason(error)}.") from None
        raise
