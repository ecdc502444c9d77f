"""The data sets that torchvision reads: where each lies, which splits it has, what its labels are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.evaluation.datasets.collections import Collection, needs, told
from dcmerge.evaluation.datasets.decoding import open_picture
from dcmerge.evaluation.datasets.folders import own_folders
from dcmerge.evaluation.datasets.known import DATA_SETS
from dcmerge.evaluation.datasets.pictures import Pictures

_BY_TRAIN = {"train": {"train": True}, "test": {"train": False}}
_BY_SPLIT = {"train": {"split": "train"}, "test": {"split": "test"}}
_ALL_SPLITS = _BY_SPLIT | {"val": {"split": "val"}}


@dataclass(frozen=True)
class _Source:
    """``marker``: what must be there below the root; ``parts``: arguments of each split; ``package``: what its files need."""

    marker: str
    parts: Mapping[str, Mapping[str, Any]]
    kind: str  # torchvision's class
    package: str = ""
    downloads: bool = True
    own_root: bool = False  # its files lie directly in the root, so a download gets a folder of its own


_SOURCES = {
    "DTD": _Source("dtd/dtd", _ALL_SPLITS, "DTD"),
    "EuroSAT": _Source("eurosat/2750", {"all": {}}, "EuroSAT"),
    "GTSRB": _Source("gtsrb/GTSRB", _BY_SPLIT, "GTSRB"),
    "MNIST": _Source("MNIST/raw", _BY_TRAIN, "MNIST"),
    "SVHN": _Source("test_32x32.mat", _BY_SPLIT, "SVHN", "scipy", own_root=True),
    "SUN397": _Source("SUN397/ClassName.txt", {"all": {}}, "SUN397"),
    "STL10": _Source("stl10_binary", _BY_SPLIT, "STL10"),
    "OxfordIIITPet": _Source(
        "oxford-iiit-pet/annotations", {"train": {"split": "trainval"}, "test": {"split": "test"}}, "OxfordIIITPet"
    ),
    "Flowers102": _Source("flowers-102", _ALL_SPLITS, "Flowers102", "scipy"),
    "CIFAR100": _Source("cifar-100-python", _BY_TRAIN, "CIFAR100"),
    "PCAM": _Source("pcam", _ALL_SPLITS, "PCAM", "h5py"),
    "FER2013": _Source("fer2013", _BY_SPLIT, "FER2013", downloads=False),
    "CIFAR10": _Source("cifar-10-batches-py", _BY_TRAIN, "CIFAR10"),
    "Food101": _Source("food-101/meta", _BY_SPLIT, "Food101"),
    "FashionMNIST": _Source("FashionMNIST/raw", _BY_TRAIN, "FashionMNIST"),
    "RenderedSST2": _Source("rendered-sst2", _ALL_SPLITS, "RenderedSST2"),
    "EMNIST": _Source("EMNIST/raw", {p: {"split": "digits", **how} for p, how in _BY_TRAIN.items()}, "EMNIST"),
    "EMNISTLetters": _Source("EMNIST/raw", {p: {"split": "letters", **how} for p, how in _BY_TRAIN.items()}, "EMNIST"),
    "KMNIST": _Source("KMNIST/raw", _BY_TRAIN, "KMNIST"),
}
#: EMNIST's files hold every character mirrored at its diagonal, and number letters from 1.
_TRANSPOSED, _FROM_ONE = ("EMNIST", "EMNISTLetters"), ("EMNISTLetters",)


def marker(name: str) -> str:
    """What torchvision looks for below a data root; empty where it has no such data set."""
    return _SOURCES[name].marker if name in _SOURCES else ""


def torchvision_set(name: str, root: Path, *, download: bool = False, fresh: bool = False) -> Collection | None:
    """One of torchvision's data sets in ``root`` or in a folder there that is called by its name.

    ``download`` completes files that are partly there, with ``fresh`` also those of which nothing is there. None where it is not
    there and must not be downloaded. Raises InputError where its files are damaged, a package for them is
    missing, or nobody offers it for download.
    """
    source = _SOURCES.get(name)
    if source is None:
        return None
    there = next((folder for folder in (root, *own_folders(root, name)) if (folder / source.marker).exists()), None)
    if there is None and not (download and fresh and source.downloads):
        return None
    if source.package:
        needs(source.package, name)
    if there is None:
        there = root / name.lower() if source.own_root else root
        there.mkdir(exist_ok=True)
    from torchvision import datasets  # here, not above: it takes a second, which only those with data sets should pay

    parts, classes = {}, ()
    for part, arguments in source.parts.items():
        with told(f"{name} as torchvision reads it", there):
            fetch = {"download": True} if download and source.downloads else {}
            own = getattr(datasets, source.kind)(str(there), **arguments, **fetch)
            parts[part], classes = _pictures(name, part, own, there / source.marker), _classes(own) or classes
    if DATA_SETS[name].classes:
        classes = ()  # torchvision's are no words that fit into a sentence ("0 - zero")
    if name == "SUN397":
        parts = _partition(parts["all"], there / "SUN397") or parts
    return Collection(f"torchvision's {name} in {there}", classes, parts)


def _pictures(name: str, part: str, own: Any, place: Path) -> Pictures:
    labels, paths = _labels(own), _paths(own)

    def read(index: int) -> Image.Image:
        # torchvision opens a file of any format that Pillow knows.
        image = open_picture(paths[index]) if paths else own[index][0]
        return image.transpose(Image.Transpose.TRANSPOSE) if name in _TRANSPOSED else image

    if name in _FROM_ONE:
        labels = [label - 1 for label in labels]
    if any(label is None for label in labels):
        raise InputError(f"{name}: expected a label for every image of {part}, got a file without labels in {shown(place)}")
    whole = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return Pictures.of(f"{name}/{part}", labels, read, paths or whole, one_each=bool(paths))


def _labels(own: Any) -> list[int]:
    """The labels without decoding images: torchvision keeps them under one of several names."""
    if type(own).__name__ == "PCAM":
        import h5py

        with h5py.File(own._base_folder / own._FILES[own._split]["targets"][0]) as file:
            labels = file["y"]
            if not isinstance(labels, h5py.Dataset):
                raise InputError(f"PCAM: expected the labels as one table, got {type(labels).__name__} in {shown(file.filename)}")
            return [int(label) for label in labels[:, 0, 0, 0]]
    for attribute in ("targets", "labels", "_labels"):
        if hasattr(own, attribute):
            return [int(label) for label in getattr(own, attribute)]
    return [label for _, label in own._samples]


def _paths(own: Any) -> list[Path]:
    """The images' own files, where each has one."""
    if hasattr(own, "samples"):
        return [Path(path) for path, _ in own.samples]
    for attribute in ("_image_files", "_images"):
        if hasattr(own, attribute):
            return list(map(Path, getattr(own, attribute)))
    samples = getattr(own, "_samples", None) or ()
    return [Path(path) for path, _ in samples if isinstance(path, (str, Path))]


def _classes(own: Any) -> tuple[str, ...]:
    names = tuple(getattr(own, "classes", ()))
    if getattr(own, "split", "") == "letters":
        names = names[1:]
    return names


def _partition(whole: Pictures, folder: Path) -> dict[str, Pictures] | None:
    """SUN397's published Partition 1, where its lists (Training_01.txt, Testing_01.txt) lie with the images or beside them."""
    files = {"train": "Training_01.txt", "test": "Testing_01.txt"}
    there = (folder, folder / "Partitions", folder.parent, folder.parent / "Partitions")
    lists = {
        part: path for part, name in files.items() if (path := next((f / name for f in there if (f / name).is_file()), None))
    }
    if len(lists) < len(files):
        return None
    places = {path.relative_to(folder).as_posix(): place for place, path in enumerate(whole.files)}
    parts = {}
    for part, path in lists.items():
        names = [line.strip().lstrip("/") for line in path.read_text().splitlines() if line.strip()]
        missing = [name for name in names if name not in places]
        if missing:
            raise InputError(f"Expected the images that {shown(path)} lists, got no {shown(missing[0])}.")
        parts[part] = Pictures.of_files(
            f"SUN397/{part}", [folder / n for n in names], [int(whole.labels[places[n]]) for n in names]
        )
    return parts
