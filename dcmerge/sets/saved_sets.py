"""Sets that a person put together: remembered between starts as plain data, one small file each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dcmerge.checkpoints.paths import reason, shown
from dcmerge.errors import InputError
from dcmerge.runtime import state_files

#: The folder with the files, instead of the one in the user's folder for programs' states.
FOLDER_VARIABLE = "DCMERGE_SETS"
_NAME_LENGTH = 80


@dataclass(frozen=True)
class SavedSet:
    """What is needed to open a set again: absolute paths or hub:owner/name@commit, and how it is read.

    ``qkv``: as ``TaskVectors.open`` takes it. ``fit``: what ``Fit.of`` takes.
    ``bench``: what ``BenchSpecification.of`` takes; empty for a set without images.
    Raises InputError for a name or a path that is not one.
    """

    name: str
    base: str | None
    experts: Mapping[str, str]
    qkv: str = "stored"
    bench: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = isinstance(self.name, str) and self.name.strip() and self.name.isprintable()
        if not named or len(self.name) > _NAME_LENGTH:
            raise InputError(f"name: expected a name of 1 to {_NAME_LENGTH} printable characters, got {self.name!r:.200}")
        if (
            not isinstance(self.experts, Mapping)
            or not isinstance(self.bench, Mapping)
            or not isinstance(self.fit, Mapping)
            or not isinstance(self.qkv, str)
        ):
            raise InputError(f"set {shown(self.name)}: expected experts by task, qkv and a bench")
        texts = [*self.experts, *self.experts.values(), *([] if self.base is None else [self.base])]
        if not self.experts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(f"set {shown(self.name)}: expected a base and at least one expert, each with a task and a path")


def saved_sets() -> dict[str, SavedSet]:
    """Every remembered set by name; a file that is damaged or of another version is passed over."""
    found = {}
    for path in sorted(_folder().glob("*.json")):
        with suppress(InputError, TypeError):
            one = SavedSet(**state_files.read_json(path))
            found[one.name] = one
    return dict(sorted(found.items()))


def save_set(one: SavedSet) -> None:
    """Remember a set, in the place of one of the same name; raises InputError where the folder cannot be written."""
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        state_files.write_json(_file(one.name), asdict(one))
    except OSError as error:
        raise InputError(f"Cannot write {shown(_folder())}: {reason(error)}.") from None


def forget_set(name: str) -> None:
    """Remember a set no more; its checkpoints stay as they are."""
    with suppress(OSError):
        _file(name).unlink()


def _folder() -> Path:
    return state_files.state_folder(FOLDER_VARIABLE, "sets")


def _file(name: str) -> Path:
    """Names are free text: the file is called by their hash."""
    return _folder() / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
