"""A set that lies in a folder: which one ``--from`` means, and what a folder holds, in words and as plain data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcmerge.checkpoints.hub import is_hub, located
from dcmerge.checkpoints.paths import shown
from dcmerge.cli.output import paragraph, size, table
from dcmerge.errors import InputError
from dcmerge.sets.layouts import FoundSet, Search, Skipped, by_name, glance, search

#: So many skipped files are listed one by one for each reason; of more the number is told.
_LISTED = 5


def set_in(
    folder: str, base: str | None = None, *, download: bool = False, progress: Callable[[float, str], None] | None = None
) -> FoundSet:
    """The one set in a folder, with another base where one is named; raises InputError for none, several, or no base.

    Both may be models of the hub, which are fetched only with ``download``.
    """
    place, what = folder_and_set(folder)
    place, base = on_disk(place, download, progress, whole=True), base and on_disk(base, download, progress)
    return chosen(search(place), what, base).checked()


def on_disk(place: str, download: bool, progress: Callable[[float, str], None] | None = None, *, whole: bool = False) -> str:
    """A path as it is; a model of the hub where it lies on this machine, see ``hub.located``."""
    return str(located(place, whole=whole, download=download, progress=progress)) if is_hub(place) else place


def folder_and_set(text: str) -> tuple[str, str]:
    """``FOLDER#WHAT`` as its parts; what comes behind # is the name of one of several sets, empty where there is none."""
    place, mark, what = text.rpartition("#")
    return (place or ".", what) if mark and "\0" not in text and not os.path.exists(text) else (text, "")


def chosen(found: Search, what: str, base: str | None) -> FoundSet:
    """The one set of a search, or of several the one that ``#WHAT`` names or whose base ``base`` is."""
    if not found.sets:
        raise InputError(
            f"expected a base and experts in {shown(found.folder)}, got none that go together. dcmerge inspect shows what is "
            "there; --base and --expert name files one by one"
        )
    named = names(found)
    sets = {name: one for name, one in named.items() if not what or name.endswith(f"#{what}")}
    if base is not None and len(sets) > 1:
        sets = {name: one for name, one in sets.items() if one.base and _is_same(one.base, base)} or sets
    if len(sets) != 1:
        raise InputError(
            f"{shown(found.folder)} holds {len(sets) or f'no set called {shown(what)}, but {len(named)}'} sets. Name one: "
            f"{', '.join(map(shown, sets or named))}"
        )
    return next(iter(sets.values())).with_base(base)


def _is_same(one: Path, other: str) -> bool:
    return one.resolve() == Path(other).resolve()


def names(found: Search) -> dict[str, FoundSet]:
    """Sets by the names under which ``--from`` takes them, as the user wrote the folder."""
    return by_name(found.sets, lambda folder: str(found.folder / _relative(folder, found.folder)))


def _relative(path: Path, folder: Path) -> Path:
    if path.is_relative_to(folder.parent):
        return Path(os.path.relpath(path, folder))
    return path


def sizes(one: FoundSet) -> dict[Path, int]:
    """Bytes on disk of every checkpoint of a set."""
    return {path: glance(path).size for path in one.checkpoints}


def search_as_data(found: Search) -> dict[str, Any]:
    """Plain data of everything that was found."""
    sets = [{"name": name, **set_as_data(one)} for name, one in names(found).items()]
    return {"folder": str(found.folder), "sets": sets, "skipped": _plain(found.skipped)}


def set_as_data(one: FoundSet) -> dict[str, Any]:
    held = sizes(one)
    return {
        "layout": one.layout,
        "title": one.title,
        "folder": str(one.folder),
        "base": str(one.base) if one.base else None,
        "experts": {task: str(path) for task, path in one.experts.items()},
        "heads": {task: str(path) for task, path in one.heads.items()},
        "encoder": one.encoder,
        "bytes": {str(path): count for path, count in held.items()},
        "total_bytes": sum(held.values()),
        "skipped": _plain(one.skipped),
        "notes": list(one.notes),
        "lacks": one.lacks or None,
    }


def _plain(skipped: tuple[Skipped, ...]) -> list[dict[str, str]]:
    return [{"path": str(one.path), "reason": one.reason} for one in skipped]


def search_as_text(found: Search) -> str:
    """Everything that was found, for people."""
    count = len(found.sets)
    parts = [f"{count} set{'s' * (count != 1)} below {shown(found.folder)}"]
    for name, one in names(found).items():
        parts += ["", paragraph(f"{one.title}: {name}"), *_set_lines(one)]
    if found.skipped:
        parts += ["", "Not part of a set", *_skipped_lines(found.skipped, found.folder)]
    return "\n".join(parts)


def _set_lines(one: FoundSet) -> list[str]:
    held = sizes(one)
    lines = [f"  layout {one.layout}"]
    if one.encoder:
        lines.append(f"  image encoder {one.encoder} (open_clip)")
    rows: list[list[object]] = [["(base)", _where(one.base, one), _bytes(held, one.base), None]]
    for task, path in one.experts.items():
        rows.append([task, _where(path, one), _bytes(held, path), _where(one.heads.get(task), one)])
    lines.append(table(["task", "checkpoint", "size", "head"], rows, left=(0, 1, 3), indent=2))
    lines.append(f"  {len(one.experts)} experts would be merged, {size(sum(held.values()))} on disk with the base")
    lines += [paragraph(f"note: {note}", indent=2) for note in one.notes]
    lines += ["  skipped", *_skipped_lines(one.skipped, one.folder, 4)] if one.skipped else []
    lines += [paragraph(f"before it can be merged: {one.lacks}", indent=2)] if one.lacks else []
    return [*lines, *(["  --base FILE names the base"] if one.base is None else [])]


def _where(path: Path | None, one: FoundSet) -> str | None:
    return None if path is None else str(_relative(path, one.folder))


def _bytes(held: dict[Path, int], path: Path | None) -> str | None:
    return size(held[path]) if path else None


def _skipped_lines(skipped: tuple[Skipped, ...], folder: Path, indent: int = 2) -> list[str]:
    """One line each, of many with one reason the first few and their number."""
    counts, told, lines = Counter(one.reason for one in skipped), Counter(), []
    for one in skipped:
        told[one.reason] += 1
        if told[one.reason] < _LISTED or counts[one.reason] <= _LISTED:
            lines.append(paragraph(f"{_relative(one.path, folder)} {one.reason}", indent=indent))
    left = {reason: counts[reason] - _LISTED + 1 for reason in counts if counts[reason] > _LISTED}
    return [*lines, *(paragraph(f"{number} more: each {reason}", indent=indent) for reason, number in left.items())]
