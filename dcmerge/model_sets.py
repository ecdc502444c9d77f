"""What the app and the command line open: an embedded zoo, or a folder that holds a base and its experts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dcmerge.checkpoints import Roots
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.task_vectors import TaskVectors
from dcmerge.zoo import ZOOS, open_zoo

#: Folders that the app may read, separated like PATH; ``python -m dcmerge app --root`` sets it.
ROOTS_VARIABLE = "DCMERGE_ROOTS"
BASE_NAME = "base"

Progress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class ModelSet:
    """Task vectors with a name, and a bench where there are tasks to evaluate on."""

    name: str
    title: str
    vectors: TaskVectors
    bench: Bench | None = None
    stamp: str = ""

    @property
    def key(self) -> str:
        """What results are remembered under: the name, and the state of the files on disk."""
        return f"{self.name}@{self.stamp}"

    @property
    def task_titles(self) -> dict[str, str]:
        """How each task is called on screen."""
        return {t: self.bench.tasks[t].title if self.bench else t for t in self.vectors.tasks}


def roots() -> Roots:
    """The folders that may be read: those of the environment, else ``checkpoints`` in the working directory."""
    named = os.environ.get(ROOTS_VARIABLE, "")
    return Roots([folder for folder in named.split(os.pathsep) if folder] or ["checkpoints"])


def available(allowed: Roots) -> dict[str, str]:
    """Names and titles of the sets that can be opened: the zoos, then every folder below the roots with a base in it.

    A set is a folder with a checkpoint called ``base`` (``base.safetensors``, ``base.pt`` or a folder ``base``) beside the
    experts' checkpoints, which are called by their tasks.
    """
    folders = sorted({Path(name).parent.as_posix() for name in allowed.checkpoints() if Path(name).stem == BASE_NAME})
    return ZOOS | {f"folder:{folder}": f"Folder {folder}" for folder in folders}


def stamp(name: str, allowed: Roots) -> str:
    """Changes when a file of a folder set does (name, size or time): then the set is opened again. Empty for a zoo."""
    if name in ZOOS:
        return ""
    found = []
    for checkpoint in allowed.checkpoints():
        if Path(checkpoint).parent.as_posix() == name.removeprefix("folder:"):
            path = allowed.resolve(checkpoint)
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            found += [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def open_set_by_name(name: str, allowed: Roots, *, progress: Progress | None = None) -> ModelSet:
    """Open a zoo by name or ``folder:PATH`` below the roots; raises InputError for anything else."""
    if name in ZOOS:
        zoo = open_zoo(name, progress=progress)
        return ModelSet(zoo.name, zoo.title, zoo.vectors, zoo.bench)
    if not name.startswith("folder:"):
        raise InputError(f"model set: expected one of {', '.join(available(allowed))}, got {name!r}")
    folder = name.removeprefix("folder:")
    base, experts = None, {}
    for checkpoint in allowed.checkpoints():
        if Path(checkpoint).parent.as_posix() != folder:
            continue
        if Path(checkpoint).stem == BASE_NAME:
            base = allowed.resolve(checkpoint)
        else:
            experts[Path(checkpoint).stem] = allowed.resolve(checkpoint)
    if base is None or not experts:
        raise InputError(f"expected a base and at least one expert in the folder {folder}, got {len(experts)} experts")
    return ModelSet(name, f"Folder {folder}", TaskVectors.open(base, experts, progress=progress), stamp=stamp(name, allowed))
