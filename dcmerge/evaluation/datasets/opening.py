"""From a task's name, or a folder, to labelled images: wherever they lie and however they are laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dcmerge.checkpoints.paths import checked_path, shown
from dcmerge.errors import InputError
from dcmerge.evaluation.datasets.collections import Collection
from dcmerge.evaluation.datasets.folders import class_folders, own_folders, resisc45, stanford_cars
from dcmerge.evaluation.datasets.known import DATA_SETS, KnownDataSet, known_data_set, spoken
from dcmerge.evaluation.datasets.pictures import Pictures
from dcmerge.evaluation.datasets.saved import is_saved, saved_data_set
from dcmerge.evaluation.datasets.splits import divide
from dcmerge.evaluation.datasets.torchvision_sets import marker, torchvision_set

#: Stands for a data set where a task has none.
NO_IMAGES = "none"


@dataclass(frozen=True, eq=False)
class Opened:
    """A data set, split. ``name``: in the literature, or the task's; ``kind``: of picture; ``rule``: of the splits, in words."""

    name: str
    title: str
    kind: str
    classes: tuple[str, ...]
    splits: Mapping[str, Pictures]
    source: str
    rule: str
    aliases: tuple[str, ...] = ()


def open_data_set(
    task: str, root: str | Path | None, *, named: str | None = None, rule: str = "task_arithmetic", download: bool = False
) -> Opened:
    """The data set of a task: by the task's name below ``root``, or what ``named`` says (a known name, or a folder).

    A known data set is taken as torchvision lays it out, as class folders or as saved by Hugging Face's ``save_to_disk``,
    whichever is found below ``root``. Nothing is downloaded unless ``download``. Raises InputError with what was looked for.
    """
    known = known_data_set(named or task)
    if named and not known:
        return _opened(task, _any_folder(checked_path(named)), None, rule)
    if root is None:
        raise InputError(f"expected a folder with the data sets, or one for the task {shown(task)}, got neither")
    base = checked_path(root)
    if not base.is_dir():
        raise InputError(f"Expected a folder of data sets, got the file {shown(base)}.")
    if known:
        return _opened(task, _known(known, base, download), known, rule)
    if (base / task).is_dir() and Path(task).name == task:
        return _opened(task, _any_folder(base / task), None, rule)
    raise InputError(
        f"no data set for the task {shown(task)}: expected a folder of that name in {shown(base)}, a task with the name of "
        f"a known data set ({', '.join(DATA_SETS)}), or a data set named for the task"
    )


def _known(known: KnownDataSet, root: Path, download: bool) -> Collection:
    special = {"Cars": stanford_cars, "RESISC45": resisc45}.get(known.name)
    found = (special(root) if special else None) or torchvision_set(known.name, root, download=download)
    for folder in [] if found else own_folders(root, known.name):
        found = saved_data_set(folder) if is_saved(folder) else class_folders(folder, known.name)
        break
    found = found or (torchvision_set(known.name, root, download=True, fresh=True) if download else None)
    if found:
        return found
    where = f"{marker(known.name)} (as torchvision has it) or " if marker(known.name) else ""
    told = "it cannot be downloaded" if download else "downloads are not allowed"
    raise InputError(
        f"{known.name}: expected {where}a folder {known.name.lower()} in {shown(root)}, found neither, and {told}",
        "" if download else "download",
    )


def _any_folder(folder: Path) -> Collection:
    if not folder.is_dir():
        raise InputError(f"Expected a folder of images, got the file {shown(folder)}.")
    return saved_data_set(folder) if is_saved(folder) else class_folders(folder)


def _opened(task: str, found: Collection, known: KnownDataSet | None, rule: str) -> Opened:
    names = _class_names(task, found, known)
    highest = max((int(part.labels.max()) for part in found.parts.values() if len(part)), default=-1)
    lowest = min((int(part.labels.min()) for part in found.parts.values() if len(part)), default=0)
    if not 0 <= lowest <= highest < len(names):
        raise InputError(
            f"{shown(task)}: expected labels from 0 to {len(names) - 1}, got {lowest} to {highest} in {shown(found.source)}"
        )
    splits, text = divide(found.parts, rule, known.name if known else "")
    splits = {name: replace(part, name=f"{task} {name}") for name, part in splits.items()}
    if known is None:
        return Opened(task, task, "picture", names, splits, found.source, text)
    return Opened(known.name, known.title, known.kind, names, splits, found.source, text, (known.name, *known.aliases))


def _class_names(task: str, found: Collection, known: KnownDataSet | None) -> tuple[str, ...]:
    """Words for the labels: the files' own, or where those are none or mere numbers, the known ones."""
    if not known or not known.classes or any(not name.strip().isdigit() for name in found.classes):
        return tuple(map(spoken, found.classes))
    if found.classes and len(found.classes) != len(known.classes):
        raise InputError(
            f"{shown(task)}: expected the {len(known.classes)} classes of {known.name}, got {len(found.classes)} in "
            f"{shown(found.source)}"
        )
    return known.classes
