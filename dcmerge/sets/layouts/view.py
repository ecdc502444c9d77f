"""What a layout chooses from: the checkpoints that no layout before it took, and the means that several of them share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

from dcmerge.checkpoints import align
from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.suffixes import WEIGHT_SUFFIXES, weights_stem
from dcmerge.sets.layouts.found import FoundSet, Skipped
from dcmerge.sets.layouts.peek import Shapes, peek
from dcmerge.sets.layouts.tree import Folder, Tree
from dcmerge.sets.layouts.units import Unit, head_of

Key = TypeVar("Key")

#: What a base is called, in this order.
BASE_NAMES = ("base", "zeroshot", "pretrained")


@dataclass(frozen=True)
class View:
    """``units`` are still free, ``every`` are all: one base may serve several sets. ``heads``: task -> files."""

    tree: Tree
    units: tuple[Unit, ...]
    every: tuple[Unit, ...]
    heads: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    def without(self, sets: Iterable[FoundSet]) -> View:
        """What is left for the layouts that come later."""
        sets = list(sets)
        taken = {path for one in sets for path in (*one.checkpoints, *(skipped.path for skipped in one.skipped))}
        return View(self.tree, tuple(u for u in self.units if u.path not in taken), self.every, self.heads)

    def beside(self, container: Path) -> list[Unit]:
        """All full models directly in a folder."""
        return [unit for unit in self.every if unit.container == container and not unit.is_adapter]

    def base_in(self, container: Path) -> Unit | None:
        """What is called like a base in a folder, or in the one above it, which holds nothing but the base and such folders."""
        places = [container] if container == self.tree.path else [container, container.parent]
        for place in places:
            for name in BASE_NAMES:
                if found := [unit for unit in self.beside(place) if unit.lower == name]:
                    return found[0]
        return self._base_above() if container == self.tree.path else None

    def _base_above(self) -> Unit | None:
        """The base beside the folder that is searched, which is not listed itself."""
        above = self.tree.path.parent
        for path in (above / f"{name}{suffix}" for name in BASE_NAMES for suffix in ("", *WEIGHT_SUFFIXES)):
            if _exists(path) and self.tree.allows(path) and peek(path).kind not in ("", "lora"):
                return Unit(path, weights_stem(path.name), above)
        return None

    def path_named(self, text: object, container: Path) -> Path | None:
        """The checkpoint that settings name as the base: one beside the experts by its last name, or a local path."""
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            return None
        last = PurePosixPath(text.replace("\\", "/")).name
        near = [u for u in self.every if not u.is_adapter and u.name == last and u.container in (container, container.parent)]
        if len(near) == 1:
            return near[0].path
        places = [container, self.tree.path] if self.tree.roots else [container, self.tree.path, Path.cwd()]
        for place in places:
            path = Path(os.path.normpath(place / text))
            if _exists(path) and self.tree.allows(path) and peek(path).kind not in ("", "lora"):
                return path
        return None

    def heads_for(self, tasks: Iterable[str], folder: Path, model: str) -> tuple[dict[str, Path], tuple[str, ...]]:
        """task -> head file: the nearest, or the one in a folder that is called after the model; notes where neither decides."""
        chosen, doubtful = {}, []
        for task in tasks:
            files = self.heads.get(task, ())
            inside = [file for file in files if file.is_relative_to(folder)] or list(files)
            named = [file for file in inside if model and model in file.parts[len(self.tree.path.parts) :]]
            fitting = named if len(inside) > 1 and named else inside
            if len(fitting) == 1:
                chosen[task] = fitting[0]
            elif fitting:
                doubtful.append(task)
        note = f"several files could be the head of {', '.join(doubtful)}, so none is used"
        return chosen, (note,) if doubtful else ()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def heads_in(folder: Folder) -> dict[str, tuple[Path, ...]]:
    """Every head file below a folder, by task; a converted one (.safetensors) takes its original's place."""
    found: dict[str, dict[Path, Path]] = {}
    for place in folder.walk():
        for name in sorted(place.files, key=lambda n: n.endswith(".safetensors")):
            if (task := head_of(name)) is not None:
                found.setdefault(task, {})[(place.path / name).with_suffix("")] = place.path / name
    return {task: tuple(files.values()) for task, files in found.items()}


def grouped(units: Iterable[Unit], key: Callable[[Unit], Key]) -> dict[Key, list[Unit]]:
    """Units by a key, in order."""
    groups: dict[Key, list[Unit]] = {}
    for unit in units:
        groups.setdefault(key(unit), []).append(unit)
    return groups


def by_task(named: Iterable[tuple[str, Unit]]) -> dict[str, Path]:
    """task -> path, sorted; where two units would have one name they keep their own."""
    pairs = list(named)
    names = [task for task, _ in pairs]
    return dict(sorted((unit.name if names.count(task) > 1 else task, unit.path) for task, unit in pairs))


@lru_cache(maxsize=4096)
def overlap(expert: Shapes, base: Shapes) -> int:
    """How many parameters of an expert the base has, with one prefix more or less; of equal experts counted once."""
    return sum(base.get(new) == expert[name] for name, new in align(expert, base).items())


def unreadable(units: Iterable[Unit]) -> tuple[str, ...]:
    """A note for every checkpoint that cannot be opened: it stays in the set, so that nothing is merged without it."""
    return tuple(f"{shown(unit.name)}: {unit.glance.error}" for unit in units if unit.glance.error and not unit.glance.pickled)


def pickled(units: Iterable[Unit]) -> tuple[Path, ...]:
    """The files among them that hold pickled modules."""
    return tuple(unit.path for unit in units if unit.glance.pickled)


def strangers(units: Iterable[Unit], base: Unit | None) -> tuple[list[Unit], tuple[Skipped, ...]]:
    """Units that share parameters with the base, and the others, which are no experts of it. An unreadable one stays."""
    kept, skipped = [], []
    for unit in units:
        if base is None or base.peek.error or unit.peek.error or overlap(unit.peek.shapes, base.peek.shapes):
            kept.append(unit)
        else:
            skipped.append(Skipped(unit.path, f"has no parameter in common with the base {shown(base.path.name)}"))
    return kept, tuple(skipped)
