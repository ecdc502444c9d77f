"""From a recipe back to its models: every input found, its content compared with the hash, then merged as the recipe says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcmerge.checkpoints import Checkpoint, Roots, open_checkpoint
from dcmerge.checkpoints.documents import read_document
from dcmerge.checkpoints.hub import is_hub, located
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.merging.merge import follow
from dcmerge.merging.mergekit import METHOD_KEY, from_mergekit
from dcmerge.merging.output import Target, Written, asked_dtype, written_dtypes
from dcmerge.merging.recipe import BASE, Recipe, settled_scale
from dcmerge.runtime.engines import Ray
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.task_vectors import TaskVectors
from dcmerge.zoo import open_zoo

Progress = Callable[[float, str], None]
MERGED = ".safetensors"
#: At most so many checkpoints below a folder are looked at for a hash.
_SEARCHED = 10_000


@dataclass(frozen=True)
class Source:
    """A recipe as it was found: where its relative paths start, and what there is to say about it."""

    recipe: Recipe
    folders: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Ready:
    """A recipe with its models, checked against it."""

    recipe: Recipe
    vectors: TaskVectors
    bench: Bench | None = None
    notes: tuple[str, ...] = ()

    def run(
        self,
        path: str | Path,
        *,
        replace: bool = False,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        workers: int | Ray = 1,
    ) -> Written:
        """Write the merge: byte for byte what the recipe comes from, where the package versions are the same.

        ``replace`` allows an earlier merge's folder to be replaced; ``workers`` is ``merge_to``'s.
        """
        target = Target(
            Path(path),
            self.recipe.content,
            self.recipe.adapter_rank,
            replace=replace,
            dtype=_another_dtype(self.recipe, self.vectors),
        )
        how: dict[str, Any] = {"progress": progress, "cancelled": cancelled, "workers": workers}
        return follow(self.recipe, self.vectors, target, bench=self.bench, **how)


def read_source(path: str | Path) -> Source:
    """The recipe in a YAML or JSON file, in a mergekit configuration or in a merged file; raises InputError that names it."""
    folder = Path(path).absolute().parent
    if Path(path).suffix != MERGED:
        document = read_document(path)
        if METHOD_KEY in document:
            recipe, notes = from_mergekit(document, shown(path))
            # mergekit's own relative paths start in the working directory.
            return Source(recipe, (folder, Path.cwd()), notes)
    recipe = Recipe.open(path)
    then = [f"{package} {old} (here {new})" for package, (old, new) in recipe.other_versions().items()]
    notes = (f"made with {', '.join(then)}: the file may differ in its last bits",) if then else ()
    return Source(recipe, (folder,), notes)


def prepare(
    source: Source,
    given: Mapping[str, str] | None = None,
    search: Sequence[str] = (),
    progress: Progress | None = None,
    *,
    download: bool = False,
) -> Ready:
    """Open what a recipe merges: at the paths ``given`` by name, else its own, else by hash below the folders ``search``.

    Models of the hub are taken from its cache, and fetched only where ``download`` allows it.

    Raises InputError for an input that is not found, whose content is another than the recipe's hash says, or that the recipe
    does not name, and whatever opening a set raises.
    """
    recipe, notes = source.recipe, list(source.notes)
    if unknown := sorted(set(given or {}) - set(recipe.inputs)):
        raise InputError(f"input: expected one of {', '.join(map(shown, recipe.inputs)) or 'none'}, got {shown(unknown[0])}")
    if recipe.zoo and not given:
        ready = _of_zoo(recipe, recipe.zoo, progress)
    else:
        opened = _opened(source, _on_disk(recipe, given or {}, download, progress), search, progress)
        _check_hashes(recipe, opened)
        experts = {name: one for name, one in opened.items() if name != BASE}
        # A zoo's recipe whose files were named by hand is no longer the zoo's.
        fit = Fit.of(recipe.fit)
        vectors = TaskVectors.open(opened.get(BASE), experts, qkv=recipe.qkv, fit=fit, progress=progress)
        ready = Ready(replace(recipe, zoo=None), vectors)
    if unhashed := [name for name, one in recipe.inputs.items() if "sha256" not in one]:
        whose = "any input" if len(unhashed) == len(recipe.inputs) else ", ".join(map(shown, unhashed))
        notes.append(f"no hash in the recipe for {whose}: taken as found")
    ready.vectors.tolerance = recipe.tolerance
    ready = replace(ready, vectors=ready.vectors.mixed(recipe.mix))
    _another_dtype(recipe, ready.vectors)
    scale, origin = settled_scale(recipe.method, recipe.parameters, ready.vectors, recipe.scale, recipe.scale_origin)
    return replace(ready, recipe=replace(ready.recipe, scale=scale, scale_origin=origin), notes=tuple(notes))


def _of_zoo(recipe: Recipe, name: str, progress: Progress | None) -> Ready:
    zoo = open_zoo(name, qkv=recipe.qkv, progress=progress)
    tasks = [name for name in recipe.inputs if name != BASE]
    same = not tasks or tuple(tasks) == zoo.vectors.tasks
    vectors = zoo.vectors if same else zoo.vectors.select(tasks)
    bench = zoo.bench if same else Bench(zoo.bench.encoder, {task: zoo.bench.tasks[task] for task in tasks}, vectors)
    _check_hashes(recipe, {**({BASE: vectors.base} if vectors.base else {}), **vectors.experts})
    return Ready(recipe, vectors, bench)


def _on_disk(recipe: Recipe, given: Mapping[str, str], download: bool, progress: Progress | None) -> dict[str, str]:
    """``given`` with the hub's models among the inputs, each where it lies on this machine."""
    named = {name: entry["file"] for name, entry in recipe.inputs.items()} | dict(given)
    found = {name: str(located(text, download=download, progress=progress)) for name, text in named.items() if is_hub(text)}
    return {**given, **found}


def _opened(source: Source, given: Mapping[str, str], search: Sequence[str], progress: Progress | None) -> dict[str, Checkpoint]:
    """Every input as a checkpoint, in the recipe's order."""
    inputs = source.recipe.inputs
    found = {name: _path(source, name, given) for name in inputs}
    opened = {name: open_checkpoint(path) for name, path in found.items() if path}
    missing = {name: inputs[name] for name, path in found.items() if path is None}
    wanted = {entry["sha256"] for entry in missing.values() if "sha256" in entry}
    by_hash = _by_hash(search, wanted, progress) if search and wanted else {}
    for name, entry in missing.items():
        if entry.get("sha256") not in by_hash:
            where = "in the folders that were searched" if search else f"in {shown(source.folders[0])}"
            raise InputError(
                f"{shown(name)}: expected the file {shown(entry['file'])} {where}, found none; nothing is downloaded", "inputs"
            )
        opened[name] = by_hash[entry["sha256"]]
    return {name: opened[name] for name in inputs}


def _path(source: Source, name: str, given: Mapping[str, str]) -> Path | None:
    """Where an input lies; None where there is nothing."""
    if name in given:
        return Path(given[name])
    candidates = [folder / source.recipe.inputs[name]["file"] for folder in source.folders]
    return next((path for path in candidates if os.path.exists(path)), None)


def _by_hash(folders: Sequence[str], wanted: set[str], progress: Progress | None) -> dict[str, Checkpoint]:
    """The checkpoints below some folders whose content has one of these hashes; looks no further once all are found."""
    found: dict[str, Checkpoint] = {}
    for folder in folders:
        if not folder or "\0" in folder or not Path(folder).is_dir():
            raise InputError(f"search: expected an existing folder, got {shown(folder)!r}")
        for one in _readable(folder, progress):
            if one.fingerprint in wanted:
                found.setdefault(one.fingerprint, one)
            if wanted <= found.keys():
                return found
    return found


def _readable(folder: str, progress: Progress | None) -> Iterator[Checkpoint]:
    roots = Roots([folder])
    names = roots.checkpoints(_SEARCHED)
    for done, name in enumerate(names):
        if progress:
            progress(done / len(names), f"looking for the inputs: {name}")
        try:
            one = open_checkpoint(roots.resolve(name))
        except InputError:
            continue  # not a checkpoint, hence not the one that is looked for
        yield one


def _check_hashes(recipe: Recipe, opened: Mapping[str, Checkpoint]) -> None:
    for name, one in opened.items():
        wanted = recipe.inputs.get(name, {}).get("sha256")
        if wanted and one.fingerprint != wanted:
            where = f"{shown(one.path)} with {one.fingerprint}"
            raise InputError(f"{shown(name)}: expected the content with sha256 {wanted}, got {where}")


def _another_dtype(recipe: Recipe, vectors: TaskVectors) -> str | None:
    """What the recipe writes a model in instead of the base's own dtypes; None where those are what it says.

    Raises InputError where neither fits, with or without the integers that are copied.
    """
    written = written_dtypes(vectors, recipe.content)
    floats = "+".join(dtype for dtype in written.split("+") if "float" in dtype)
    if recipe.dtype in (None, written, floats):
        return None
    if asked := asked_dtype(recipe):
        return asked
    raise InputError(f"dtype: expected {written}, in which this merge is written, got {shown(recipe.dtype)}")
