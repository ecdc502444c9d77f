"""Data sets as plain folders: one folder a class, RESISC45's lists, Stanford Cars' annotations."""

from __future__ import annotations

from pathlib import Path

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.evaluation.datasets.collections import Collection, needs, told
from dcmerge.evaluation.datasets.known import known_data_set
from dcmerge.evaluation.datasets.pictures import Pictures

_SPLIT_FOLDERS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_RESISC = "resisc45-{}.txt"
_IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def class_folders(folder: Path, data_set: str = "") -> Collection:
    """One folder of images a class, below train, val and test where these are there, else directly in ``folder``.

    SUN397's classes may lie as ``a_abbey`` (the first letter is no part of the name). Raises InputError where there are no
    images, or a split has a class that the first one lacks.
    """
    inside = subfolders(folder)
    by_part = {_SPLIT_FOLDERS[path.name.lower()]: path for path in inside if path.name.lower() in _SPLIT_FOLDERS}
    named = by_part or {"all": folder}
    classes = [path.name for path in subfolders(next(iter(named.values())))]
    parts = {part: _class_folders(path, classes, f"{folder.name}/{part}") for part, path in named.items()}
    if not any(map(len, parts.values())):
        raise InputError(f"Expected one folder of images for each class in {shown(folder)}, got no image ({' '.join(_IMAGES)}).")
    if data_set == "SUN397" and all(name[1:2] == "_" for name in classes):
        classes = [name[2:] for name in classes]
    return Collection(f"class folders in {folder}", tuple(classes), parts)


def subfolders(folder: Path) -> list[Path]:
    """Folders directly in a folder, hidden ones left out, sorted by name."""
    with told("a folder of images", folder):
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_folders(folder: Path, classes: list[str], name: str) -> Pictures:
    own = [path.name for path in subfolders(folder)]
    if own != classes:
        other = sorted(set(own) ^ set(classes))
        raise InputError(
            f"Expected the same class folders in every split, got other ones in {shown(folder)}: {shown(', '.join(other[:5]))}."
        )
    if not classes:
        return Pictures.of_files(name, [], [])
    from torchvision.datasets.folder import make_dataset  # here, not above: it takes a second

    with told("one folder of images for each class", folder):
        found = make_dataset(str(folder), {n: i for i, n in enumerate(classes)}, extensions=_IMAGES, allow_empty=True)
    return Pictures.of_files(name, [Path(path) for path, _ in found], [label for _, label in found])


def resisc45(root: Path) -> Collection | None:
    """Class folders, and lists of file names (``airplane_001.jpg``) beside or above them; None where there is no such list."""
    here = (root, *own_folders(root, "RESISC45"))
    lists = next((folder for folder in here if (folder / _RESISC.format("train")).is_file()), None)
    if lists is None:
        return None
    names = {part: _listed(lists, part) for part in ("train", "val", "test") if (lists / _RESISC.format(part)).is_file()}
    classes = sorted({_class_of(name) for own in names.values() for name in own})
    images = next((f for f in (lists, *subfolders(lists)) if classes and (f / classes[0]).is_dir()), None)
    if images is None:
        raise InputError(f"Expected RESISC45's class folders beside its lists in {shown(lists)}, found none.")
    parts = {}
    for part, own in names.items():
        paths = [images / _class_of(name) / name for name in own]
        parts[part] = Pictures.of_files(f"RESISC45/{part}", paths, [classes.index(_class_of(name)) for name in own])
    return Collection(f"RESISC45 with its lists in {lists}", tuple(classes), parts)


def _class_of(name: str) -> str:
    return name.rpartition("_")[0]


def _listed(folder: Path, part: str) -> list[str]:
    file = folder / _RESISC.format(part)
    with told("RESISC45's list of file names", file):
        return [Path(line.strip()).name for line in file.read_text().splitlines() if line.strip()]


def stanford_cars(root: Path) -> Collection | None:
    """The devkit's annotations with cars_train and cars_test, in ``stanford_cars`` or ``cars``; None where there is no devkit."""
    folder = next((f for f in (root, *own_folders(root, "Cars")) if (f / "devkit").is_dir()), None)
    if folder is None:
        return None
    needs("scipy", "Stanford Cars")
    from scipy.io import loadmat

    with told("Stanford Cars", folder):
        classes = loadmat(folder / "devkit" / "cars_meta.mat", squeeze_me=True)["class_names"].tolist()
        parts = {}
        for part, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
            rows = loadmat(folder / file, squeeze_me=True)["annotations"]
            paths = [folder / f"cars_{part}" / Path(str(row["fname"])).name for row in rows]
            parts[part] = Pictures.of_files(f"Cars/{part}", paths, [int(row["class"]) - 1 for row in rows])
    return Collection(f"Stanford Cars in {folder}", tuple(classes), parts)


def own_folders(root: Path, data_set: str) -> list[Path]:
    """Folders directly in ``root`` whose name means this data set."""
    return [path for path in subfolders(root) if (known := known_data_set(path.name)) and known.name == data_set]
