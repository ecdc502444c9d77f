"""What the app and the command line open: an embedded zoo, or a set that lies in a folder, whatever its layout."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import Roots
from dcmerge.checkpoints.hub import is_hub, located
from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.roots import what_text_lacks
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.evaluation.datasets import NO_IMAGES, known_data_set
from dcmerge.evaluation.own_models import BenchSpecification, open_bench
from dcmerge.sets.layouts import FoundSet, Search, by_name, search
from dcmerge.sets.saved_sets import saved_sets
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.mix import Mix
from dcmerge.vectors.task_vectors import TaskVectors
from dcmerge.zoo import ZOOS, open_zoo

#: Folders that the app may read, separated like PATH; ``python -m dcmerge app --root`` sets it.
ROOTS_VARIABLE = "DCMERGE_ROOTS"
FOLDER, SAVED = "folder:", "saved:"

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
        """What results are remembered under: the name, the state of the files on disk, and the mix."""
        return f"{self.name}@{self.stamp}{self.vectors.mix.key if self.vectors.mix else ''}"

    def mixed(self, mix: Mix) -> ModelSet:
        """The same set with weights of experts and profiles over depth in its merges; the bench's own experts stay as they are.

        Raises InputError as ``TaskVectors.mixed`` does.
        """
        return replace(self, vectors=self.vectors.mixed(mix))

    @property
    def images(self) -> Bench:
        """The bench, for what cannot do without images; InputError where the set has none."""
        if self.bench is None:
            raise InputError(f"{self.name}: expected a set with images of its tasks to evaluate on, got one without")
        return self.bench

    @property
    def task_titles(self) -> dict[str, str]:
        """How each task is called on screen."""
        return {t: self.bench.tasks[t].title if self.bench else t for t in self.vectors.tasks}

    def is_mixed_by(self, data: Mapping[str, Any]) -> bool:
        """Whether the mix is this one, as a recipe or a job has it."""
        return Mix.from_data(data).trimmed() == self.vectors.mix


def roots() -> Roots:
    """The folders that may be read: those of the environment, else ``checkpoints`` in the working directory."""
    named = os.environ.get(ROOTS_VARIABLE, "")
    return Roots([folder for folder in named.split(os.pathsep) if folder] or ["checkpoints"])


def folder_sets(allowed: Roots, search: Callable[[Path, Roots], Search] = search) -> dict[str, FoundSet]:
    """Every set below the roots by name: ``folder:PATH``, and ``folder:PATH#WHAT`` where a folder holds several.

    ``search``: another way to do it (``Searcher.search`` for a server).
    """
    found = [one for root in allowed.folders if root.is_dir() for one in search(root, allowed).sets]
    return dict(sorted(by_name(found, lambda folder: f"{FOLDER}{allowed.name_of(folder)}").items()))


def available(allowed: Roots, in_folders: Mapping[str, FoundSet] | None = None) -> dict[str, str]:
    """Names and titles of the sets that can be opened: the zoos, the remembered ones, then every set found below the roots.

    ``in_folders``: what ``folder_sets`` found a moment ago, which saves the search.
    """
    saved = {f"{SAVED}{name}": name for name in saved_sets()}
    found = folder_sets(allowed) if in_folders is None else in_folders
    return ZOOS | saved | {name: _title(name, one) for name, one in found.items()}


def _title(name: str, found: FoundSet) -> str:
    title = f"Folder {name.removeprefix(FOLDER)}"
    about = [*([] if found.layout == "plain" else [found.title]), *(["cannot be opened yet"] if found.lacks else [])]
    return f"{title} ({', '.join(about)})" if about else title


def stamp(name: str, allowed: Roots, in_folders: Mapping[str, FoundSet] | None = None) -> str:
    """Changes when a file of the set does (name, size or time): then the set is opened again. Empty for a zoo."""
    if name.startswith(SAVED):
        saved = saved_sets().get(name.removeprefix(SAVED))
        # A commit of the hub's never changes.
        paths = [path for path in (saved.base, *saved.experts.values()) if path and not is_hub(path)] if saved else []
        return _stamp(list(map(Path, paths)), repr(saved)) if saved else ""
    if name in ZOOS:
        return ""
    found = (folder_sets(allowed) if in_folders is None else in_folders).get(name)
    return _stamp_of(found) if found else ""


def _stamp_of(found: FoundSet) -> str:
    return _stamp([*found.checkpoints, *found.heads.values()])


def _stamp(paths: Sequence[Path], settings: str = "") -> str:
    lines = [settings]
    for path in paths:
        files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
        lines += [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files if file.exists()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def sets_with_images() -> tuple[str, ...]:
    """Names of the sets that bring images to evaluate on: the zoos, and remembered sets with a bench."""
    return (*ZOOS, *(f"{SAVED}{name}" for name, one in saved_sets().items() if one.bench))


def open_set_by_name(
    name: str,
    allowed: Roots,
    *,
    in_folders: Mapping[str, FoundSet] | None = None,
    remembered: bool = False,
    progress: Progress | None = None,
) -> ModelSet:
    """Open a zoo by name, ``saved:NAME``, or ``folder:PATH`` below the roots; raises InputError for anything else.

    ``in_folders`` as in ``available``, ``remembered`` as in ``TaskVectors.open``.
    """
    if name in ZOOS:
        zoo = open_zoo(name, progress=progress)
        return ModelSet(zoo.name, zoo.title, zoo.vectors, zoo.bench)
    if name.startswith(SAVED):
        return _open_saved(name, allowed, remembered, progress)
    if not name.startswith(FOLDER):
        raise InputError(f"model set: expected one of {', '.join(available(allowed))}, got {name!r}")
    found = (folder_sets(allowed) if in_folders is None else in_folders).get(name)
    if found is None:
        folder = name.removeprefix(FOLDER)
        raise InputError(f"expected a base and at least one expert in the folder {folder}, got none that go together")
    checked = _inside(found, allowed).checked()
    vectors = TaskVectors.open(checked.base, checked.experts, remembered=remembered, progress=progress)
    return ModelSet(name, _title(name, found), vectors, stamp=_stamp_of(found))


def _open_saved(name: str, allowed: Roots, remembered: bool, progress: Progress | None) -> ModelSet:
    """A remembered set; its files must lie below today's roots, models of the hub in the hub's cache."""
    saved = saved_sets().get(name.removeprefix(SAVED))
    if saved is None:
        raise InputError(f"model set: expected a remembered set, got {shown(name)}, which was forgotten")
    base = None if saved.base is None else _resolved(saved.base, allowed)
    experts = {task: _resolved(path, allowed) for task, path in saved.experts.items()}
    how: dict[str, Any] = {"qkv": saved.qkv, "fit": Fit.of(saved.fit), "remembered": remembered, "progress": progress}
    vectors = TaskVectors.open(base, experts, **how)
    bench = open_bench(vectors, _inside_roots(saved.bench, allowed), progress=progress) if saved.bench else None
    return ModelSet(name, saved.name, vectors, bench, stamp(name, allowed))


def _resolved(text: str, allowed: Roots) -> Path:
    """A path below the roots; of a name on the hub exactly that model's folder in the hub's cache, without any fetching."""
    return located(text) if is_hub(text) else allowed.resolve(text)


def _inside_roots(bench: Mapping[str, Any], allowed: Roots) -> BenchSpecification:
    """The same with every path of it below the roots; raises InputError for one that is not."""
    given = BenchSpecification.of(bench)
    paths: dict[str, Any] = {name: str(allowed.resolve(path)) for name in ("data", "heads") if (path := getattr(given, name))}
    for name in ("encoder", "weights"):  # a name of open_clip's, or a file
        text = getattr(given, name)
        if text and (text.endswith(".json") or Path(text).exists()):
            paths[name] = str(allowed.resolve(text))
    paths["datasets"] = {task: _data_set_inside(text, paths.get("data"), allowed) for task, text in given.datasets.items()}
    return replace(given, **paths)


def _inside(found: FoundSet, allowed: Roots) -> FoundSet:
    """The same set, every path of it checked once more: raises InputError for one that leaves the roots by now."""

    def resolved(path: Path) -> Path:
        return allowed.resolve(str(path))

    experts = {task: resolved(path) for task, path in found.experts.items()}
    return replace(found, base=found.base and resolved(found.base), experts=experts)


def _data_set_inside(text: str, data: str | None, allowed: Roots) -> str:
    """A known data set's name as it is; else the folder of that name in the folder of data sets, or below a root."""
    if text == NO_IMAGES or known_data_set(text):
        return text
    beside = f"{data}/{text}"
    return str(allowed.resolve(beside if data and not what_text_lacks(text) and Path(beside).exists() else text))
