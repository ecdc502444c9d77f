"""From a folder to the sets in it: the layouts tried in order, and everything that none of them used."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import Roots
from dcmerge.checkpoints.modules import MODULES, is_module
from dcmerge.checkpoints.suffixes import weights_suffix
from dcmerge.sets.layouts import fusion_bench, language_model, old_task_vectors, open_clip, peft, plain, task_vectors
from dcmerge.sets.layouts.found import FoundSet, Skipped
from dcmerge.sets.layouts.peek import peek
from dcmerge.sets.layouts.tree import Folder, Tree
from dcmerge.sets.layouts.units import HUB, HUB_INNER, Unit, head_of, not_a_model, units_in
from dcmerge.sets.layouts.view import View, heads_in

#: Tried in this order; each sees what those before it left.
LAYOUTS: tuple[Callable[[View], list[FoundSet]], ...] = (
    task_vectors.find,
    old_task_vectors.find,
    peft.find,
    fusion_bench.find,
    open_clip.find,
    language_model.find,
    plain.find,
)


@dataclass(frozen=True)
class Search:
    """What was found in a folder; ``skipped`` lies beside all sets."""

    folder: Path
    sets: tuple[FoundSet, ...]
    skipped: tuple[Skipped, ...]
    #: What each checkpoint of a set takes on disk, in bytes.
    sizes: Mapping[Path, int] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Plain data, from which ``from_data`` makes the same again."""
        return {
            "folder": str(self.folder),
            "sets": [one.to_data() for one in self.sets],
            "skipped": [[str(one.path), one.reason] for one in self.skipped],
            "sizes": {str(path): size for path, size in self.sizes.items()},
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Search:
        sets = tuple(FoundSet.from_data(one) for one in data["sets"])
        skipped = tuple(Skipped(Path(path), reason) for path, reason in data["skipped"])
        return cls(Path(data["folder"]), sets, skipped, {Path(path): size for path, size in data["sizes"].items()})


def search(folder: str | os.PathLike[str], roots: Roots | None = None) -> Search:
    """Every set in a folder, and what belongs to none.

    Reads names, headers and settings alone. With ``roots`` nothing outside of them is read or named, whatever links and
    settings say. Raises InputError where the folder does not exist or is none.
    """
    tree = Tree(Path(folder), roots)
    units, left_out = units_in(tree)
    view = View(tree, tuple(units), tuple(units), heads_in(tree.folder))
    sets: list[FoundSet] = []
    for find in LAYOUTS:
        found = find(view)
        sets += found
        view = view.without(found)
    sets.sort(key=lambda one: (str(one.folder), one.layout, str(one.base)))
    rest = [*tree.odd, *left_out]
    rest += _Rest({skipped.path for skipped in rest}, sets, view.units).of(tree.folder)
    owned = [_owners(skipped.path, sets) for skipped in rest]
    full = [
        replace(one, skipped=_in_order((*one.skipped, *(s for s, own in zip(rest, owned, strict=True) if place in own))))
        for place, one in enumerate(sets)
    ]
    sizes = {path: peek(path).size for one in full for path in one.checkpoints}
    return Search(tree.path, tuple(full), _in_order(s for s, own in zip(rest, owned, strict=True) if not own), sizes)


def find_sets(folder: str | os.PathLike[str], roots: Roots | None = None) -> list[FoundSet]:
    """Every set of a base and its experts in a folder, whatever the layout; see ``search``."""
    return list(search(folder, roots).sets)


def by_name(sets: Iterable[FoundSet], name_of: Callable[[Path], str]) -> dict[str, FoundSet]:
    """Sets by the name of their folder, with ``#WHAT`` behind it where one folder holds several: the base, or the title's end."""
    sets = list(sets)
    counts = Counter(one.folder for one in sets)
    named: dict[str, FoundSet] = {}
    for one in sets:
        name = name_of(one.folder)
        if counts[one.folder] > 1:
            what = f"{name}#{one.base.stem if one.base else one.title.split()[-1]}"
            name = next(n for n in (what, f"{what}-{one.layout}", *(f"{what}-{i}" for i in range(2, 9999))) if n not in named)
        named[name] = one
    return named


def _in_order(skipped: Iterator[Skipped] | tuple[Skipped, ...]) -> tuple[Skipped, ...]:
    return tuple(sorted(skipped, key=lambda one: str(one.path)))


def _owners(path: Path, sets: list[FoundSet]) -> list[int]:
    """The sets in whose folder a path lies, of nested folders the inmost."""
    around = [place for place, one in enumerate(sets) if path.is_relative_to(one.folder)]
    depth = max((len(sets[place].folder.parts) for place in around), default=0)
    return [place for place in around if len(sets[place].folder.parts) == depth]


class _Rest:
    """Every file that no set uses and that nothing was said of yet, with a reason."""

    def __init__(self, settled: set[Path], sets: list[FoundSet], free: tuple[Unit, ...]) -> None:
        self.used = {path for one in sets for path in (*one.checkpoints, *one.heads.values())}
        self.read = {file for path in self.used if path.is_dir() for file in peek(path).files}
        self.settled = settled | {skipped.path for one in sets for skipped in one.skipped}
        self.alone = {unit.path: unit for unit in free if unit.path not in self.used | self.settled}

    def of(self, folder: Folder) -> Iterator[Skipped]:
        in_cache = folder.path.name in HUB_INNER and folder.path.parent.name.startswith(HUB)
        is_part = is_module(folder.path.name) and (folder.path.parent / MODULES).is_file()
        if folder.path in self.settled or in_cache or (is_part and folder.path.parent in self.used):
            return
        if folder.path in self.alone:
            yield Skipped(folder.path, _why_alone(self.alone[folder.path]))
        elif not any(weights_suffix(name) for inner in folder.walk() for name in inner.files):
            if folder.path not in self.used and any(inner.files for inner in folder.walk()):
                yield Skipped(folder.path, "is a folder without checkpoints")
            return
        else:
            yield from self._files(folder)
        for inner in folder.folders:
            yield from self.of(inner)

    def _files(self, folder: Folder) -> Iterator[Skipped]:
        is_model = folder.path in self.used
        for path in (folder.path / name for name in folder.files):
            belongs = is_model and not weights_suffix(path.name)
            if belongs or path in self.used | self.read | self.settled:
                continue
            yield Skipped(path, _why_alone(self.alone[path]) if path in self.alone else _why(path, is_model))


def _why(path: Path, in_model: bool) -> str:
    if why := not_a_model(path.name):
        return why
    if head_of(path.name) is not None:
        return "is a head, but no task of a set has its name"
    return "belongs to a model whose weights are in other files" if in_model else "is no checkpoint"


def _why_alone(unit: Unit) -> str:
    found = unit.peek
    if found.error:
        return f"cannot be opened: {found.error}"
    return "has no base or expert beside it that it fits"
