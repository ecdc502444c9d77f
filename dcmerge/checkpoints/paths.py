"""What is checked about a path before anything is opened: existence, kind of file, size."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from dcmerge.errors import InputError

# A safetensors file is memory-mapped, so its size costs nothing; a larger .pt than this is a mistake or an attack.
STATE_DICT_SIZE_LIMIT = 64 * 2**30
# Settings and shard indexes are JSON of a few kB to a few MB; more is not one of them.
JSON_SIZE_LIMIT = 64 * 2**20
# Of the largest models the longest name has about 150 characters.
LONGEST_NAME = 1000


def shown(path: object) -> str:
    """Text of a path for a message of one line: characters that do not print are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(path))


def check_name(name: str, path: Path) -> None:
    """Raises InputError for the name of a tensor that no file could be written with, or that is longer than any in use."""
    if len(name) > LONGEST_NAME:
        told = f"a name of {len(name)} characters ({shown(name[:40])}...)"
        raise InputError(f"{shown(path)} holds a tensor with {told}, expected at most {LONGEST_NAME}.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{shown(path)} holds a tensor whose name is no text of Unicode: {shown(name)}.") from None
    if name == "__metadata__":
        raise InputError(f"{shown(path)} holds a tensor called __metadata__, which safetensors keeps for its own use.")


def checked_path(path: str | os.PathLike[str]) -> Path:
    """``path`` as a Path if a file or folder is there.

    Raises InputError where it holds a NUL byte, does not exist, cannot be reached, or is a device, pipe or socket:
    opening one of those could block forever, so this looks without opening.
    """
    text = os.fspath(path)
    if not text:
        raise InputError("Expected the path of a checkpoint, got an empty one.")
    if "\0" in text:
        raise InputError(f"Expected a path, got one with a NUL byte: {shown(text)}.")
    try:
        mode = os.stat(text).st_mode
    except FileNotFoundError:
        raise InputError(f"There is no file or folder {shown(text)}.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot open {shown(text)}: {reason(error)}.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"Expected a file or a folder, got a device, pipe or socket: {shown(text)}.")
    return Path(text)


def checked_file(path: str | os.PathLike[str]) -> Path:
    """Like :func:`checked_path`, but a folder is refused too."""
    checked = checked_path(path)
    if checked.is_dir():
        raise InputError(f"Expected a file, got the folder {shown(checked)}.")
    return checked


def reason(error: Exception) -> str:
    """The system's own words for an error, without numbers and paths, or the first line of any other error."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (words.strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def what_it_is(path: Path) -> str:
    """What lies where weights or settings should, and the way out, as the end of a sentence; empty where it is not known."""
    try:
        with open(path, "rb") as file:
            start = file.read(200).lstrip().lower()
    except OSError:
        return ""
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself: run `git lfs pull` in its folder"
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page, not the file itself: the download failed or asked for a login; download it again"
    if start.startswith(b'{"error'):
        return "an error message of a server, not the file itself: download it again"
    return ""


def read_json(path: str | os.PathLike[str]) -> dict[str, object]:
    """The JSON object in a file; anything else is an InputError."""
    checked = checked_file(path)
    try:
        size = checked.stat().st_size
        if size > JSON_SIZE_LIMIT:
            raise InputError(f"Expected a JSON file of at most {JSON_SIZE_LIMIT} bytes, {shown(checked)} has {size}.")
        content = json.loads(checked.read_bytes())
    except OSError as error:
        raise InputError(f"Cannot read {shown(checked)}: {reason(error)}.") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        told = f"which is {what_it_is(checked) or f'damaged ({reason(error)})'}"
        raise InputError(f"Expected a JSON file, got {shown(checked)}, {told}.") from None
    if not isinstance(content, dict):
        raise InputError(f"Expected a JSON object, got a {type(content).__name__} in {shown(checked)}.")
    return content
