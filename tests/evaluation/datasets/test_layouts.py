"""Every layout in which data sets come, written small to disk and read as the real one is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dcmerge.evaluation import Preprocess
from dcmerge.evaluation.datasets import DATA_SETS, Opened, open_data_set
from tests.evaluation.datasets import builders
from tests.evaluation.datasets.builders import pictures

NAMES = ["ant hill", "bee_hive", "cat flap"]
TRAIN, VAL, TEST = [n % 3 for n in range(30)], [n % 3 for n in range(6)], [(n + 1) % 3 for n in range(9)]
PREPROCESS = Preprocess((8, 8))


def parts(**how: int) -> dict[str, list]:
    named = {"train": TRAIN, "val": VAL, "test": TEST}
    return {part: pictures(labels, seed=seed, **how) for seed, (part, labels) in enumerate(named.items())}


def train_and_test(**how: int) -> tuple[list, list]:
    found = parts(**how)
    return found["train"], found["test"]


def _transposed(rows: list) -> list:
    return [(np.ascontiguousarray(pixels.T), label) for pixels, label in rows]


def _emnist(root: Path, split: str, first: int) -> None:
    train, test = ([(pixels, label + first) for pixels, label in _transposed(rows)] for rows in train_and_test(channels=1))
    builders.mnist_like(root, train, test, "EMNIST", f"emnist-{split}-")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "Cars": lambda root: builders.stanford_cars(root, *train_and_test(), ["Audi TT 2011", "BMW M3 2012", "Fiat 500 2012"]),
    "DTD": lambda root: builders.dtd(root, parts(), NAMES),
    "EuroSAT": lambda root: builders.class_folders(
        root / "eurosat" / "2750", parts()["train"], ["AnnualCrop", "Forest", "SeaLake"]
    ),
    "GTSRB": lambda root: builders.gtsrb(root, *train_and_test()),
    "MNIST": lambda root: builders.mnist_like(root, *train_and_test(channels=1)),
    "RESISC45": lambda root: builders.resisc45(root, parts(), ["airplane", "basketball_court", "church"]),
    "SVHN": lambda root: builders.svhn(root / "svhn", *train_and_test()),
    "SUN397": lambda root: builders.sun397(root, parts()["train"], ["abbey", "bakery", "castle"], partition=True),
    "STL10": lambda root: builders.stl10(root, *train_and_test(size=96), NAMES),
    "OxfordIIITPet": lambda root: builders.pets(root, *train_and_test(), ["Abyssinian", "beagle", "Chartreux"]),
    "Flowers102": lambda root: builders.flowers(root, parts()),
    "CIFAR100": lambda root: builders.cifar(root, *train_and_test(size=32), NAMES, hundred=True),
    "PCAM": lambda root: builders.pcam(root, {part: [(p, y % 2) for p, y in _binary(rows)] for part, rows in parts().items()}),
    "FER2013": lambda root: builders.fer2013(root, *train_and_test(size=48, channels=1)),
    "CIFAR10": lambda root: builders.cifar(root, *train_and_test(size=32), NAMES),
    "Food101": lambda root: builders.food101(root, *train_and_test(), ["apple_pie", "baklava", "ceviche"]),
    "FashionMNIST": lambda root: builders.mnist_like(root, *train_and_test(channels=1), "FashionMNIST"),
    "RenderedSST2": lambda root: builders.sst2(root, {part: _binary(rows) for part, rows in parts().items()}),
    "EMNIST": lambda root: _emnist(root, "digits", 0),
    "KMNIST": lambda root: builders.mnist_like(root, *train_and_test(channels=1), "KMNIST"),
    "EMNISTLetters": lambda root: _emnist(root, "letters", 1),
}


def _binary(rows: list) -> list:
    return [row for row in rows if row[1] < 2]


def opened(name: str, root: Path, monkeypatch: pytest.MonkeyPatch, **how: str) -> Opened:
    LAYOUTS[name](root)
    builders.accept_checksums(monkeypatch, root)
    return open_data_set(name, root, **how)


def assert_told_by_grey(found: Opened) -> None:
    """Every decoded image is as grey as its label says, and the bright corner is where it was written."""
    for part in found.splits.values():
        split = part.decoded(PREPROCESS)
        assert len(split) == len(part) and split.images.dtype == torch.uint8 and split.images.shape[1:] == (3, 8, 8)
        grey = split.images[:, :, 3:].double().mean(dim=(1, 2, 3))
        assert (grey - (20 * split.labels + 5.5)).abs().max() < 5
        corner = split.images[:, :, 0].double().mean(dim=1)
        assert (corner[:, -1] > corner[:, 0] + 40).all()


def test_every_task_of_the_literature_is_tried() -> None:
    assert set(LAYOUTS) == set(DATA_SETS) and len(LAYOUTS) == 21


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_keep_their_labels(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(name, tmp_path, monkeypatch)
    assert (found.name, found.title) == (name, DATA_SETS[name].title) and set(found.splits) == {"val", "test"}
    assert all(len(part) > 0 for part in found.splits.values()) and found.rule.startswith("val: ")
    assert_told_by_grey(found)


@pytest.mark.parametrize(
    ("name", "rule", "sizes"),
    [
        ("MNIST", "task_arithmetic", (3, 9)),
        ("MNIST", "official", (3, 9)),
        ("MNIST", "lora", (1, 8)),
        ("DTD", "task_arithmetic", (3, 9)),
        ("DTD", "official", (6, 9)),
        ("DTD", "lora", (6, 9)),
        ("Flowers102", "task_arithmetic", (3, 9)),
        ("Flowers102", "official", (6, 9)),
        ("Flowers102", "lora", (1, 8)),
        ("RESISC45", "task_arithmetic", (3, 9)),
        ("RESISC45", "lora", (6, 9)),
        ("EuroSAT", "task_arithmetic", (3, 3)),
        ("SUN397", "task_arithmetic", (1, 15)),
    ],
)
def test_split_rules(name: str, rule: str, sizes: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(name, tmp_path, monkeypatch, rule=rule)
    assert (len(found.splits["val"]), len(found.splits["test"])) == sizes
    assert all(str(size) in found.rule for size in sizes)


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("MNIST", tuple("0123456789")),
        ("SVHN", tuple("0123456789")),
        ("EMNISTLetters", tuple("abcdefghijklmnopqrstuvwxyz")),
        ("EuroSAT", ("annual crop", "Forest", "sea lake")),
        ("RESISC45", ("airplane", "basketball court", "church")),
        ("Cars", ("Audi TT 2011", "BMW M3 2012", "Fiat 500 2012")),
        ("Food101", ("apple pie", "baklava", "ceviche")),
        ("OxfordIIITPet", ("Abyssinian", "Beagle", "Chartreux")),
        ("CIFAR10", ("ant hill", "bee hive", "cat flap")),
        ("STL10", ("ant hill", "bee hive", "cat flap")),
        ("RenderedSST2", ("negative", "positive")),
        ("SUN397", ("abbey", "bakery", "castle")),
        ("KMNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
    ],
)
def test_class_names_are_words(name: str, classes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(name, tmp_path, monkeypatch).classes == classes


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("GTSRB", 43, "stop"),
        ("PCAM", 2, "lymph node tumor tissue"),
        ("FER2013", 7, "happy"),
        ("Flowers102", 102, "pink primrose"),
        ("FashionMNIST", 10, "Ankle boot"),
        ("CIFAR100", 3, "ant hill"),
        ("DTD", 3, "cat flap"),
    ],
)
def test_number_of_classes(name: str, count: int, some: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(name, tmp_path, monkeypatch)
    assert len(found.classes) == count and some in found.classes


def test_sun397_without_its_partition_says_so(tmp_path: Path) -> None:
    builders.sun397(tmp_path, parts()["train"], ["abbey", "bakery", "castle"], partition=False)
    assert "not a published split" in open_data_set("SUN397", tmp_path).rule


def test_cars_in_the_folder_of_the_merging_papers(tmp_path: Path) -> None:
    builders.stanford_cars(tmp_path, *train_and_test(), ["Audi TT 2011", "BMW M3 2012", "Fiat 500 2012"], folder="cars")
    assert_told_by_grey(open_data_set("stanford_cars", tmp_path))


@pytest.mark.parametrize("name", ["DTD", "EuroSAT", "cats"])
def test_class_folders_by_split(name: str, tmp_path: Path) -> None:
    for part, rows in parts().items():
        builders.class_folders(tmp_path / name.lower() / part, rows, NAMES)
    found = open_data_set(name.lower(), tmp_path)
    assert found.classes == ("ant hill", "bee hive", "cat flap")
    assert len(found.splits["val"]) == (3 if name == "DTD" else 6) and len(found.splits["test"]) == 9
    assert_told_by_grey(found)


def test_sun397_as_the_merging_papers_lay_it_out(tmp_path: Path) -> None:
    """train and val, the latter for the test; class folders with a letter before the name."""
    for part in ("train", "val"):
        builders.class_folders(tmp_path / "sun397" / part, parts()[part], ["a_abbey", "b_bakery_shop", "c_castle"])
    found = open_data_set("sun397", tmp_path)
    assert found.classes == ("abbey", "bakery shop", "castle") and len(found.splits["test"]) == 6
    assert "no test split" in found.rule


def test_class_folders_without_splits(tmp_path: Path) -> None:
    builders.class_folders(tmp_path / "mine", parts()["train"], NAMES)
    for found in (open_data_set("mine", tmp_path), open_data_set("x", None, named=str(tmp_path / "mine"))):
        assert len(found.splits["val"]) == len(found.splits["test"]) == 3 and "not a published split" in found.rule
        assert not set(found.splits["val"].places.tolist()) & set(found.splits["test"].places.tolist())
        assert_told_by_grey(found)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_hugging_face_data_sets(as_bytes: bool, tmp_path: Path) -> None:
    builders.hugging_face(tmp_path / "saved", {"train": parts()["train"], "test": parts()["test"]}, NAMES, as_bytes)
    found = open_data_set("pets of mine", None, named=str(tmp_path / "saved"))
    assert found.classes == (("0", "1", "2") if as_bytes else ("ant hill", "bee hive", "cat flap"))
    assert (len(found.splits["val"]), len(found.splits["test"])) == (3, 9)
    assert_told_by_grey(found)


def test_one_hugging_face_data_set_below_the_root_by_its_name(tmp_path: Path) -> None:
    """The merging papers' FER2013: bytes and numbers, whose names are known."""
    builders.hugging_face(tmp_path / "fer2013_dataset", {"train": parts()["train"], "test": parts()["test"]}, None, as_bytes=True)
    with pytest.raises(Exception, match="expected the 7 classes of FER2013, got 3"):
        open_data_set("FER2013Val", tmp_path)
    seven = pictures([n % 7 for n in range(21)])
    builders.hugging_face(tmp_path / "whole" / "fer2013_dataset", {"all": seven}, None, as_bytes=True)
    found = open_data_set("FER2013Val", tmp_path / "whole")
    assert found.classes[3] == "happy" and len(found.splits["test"]) == 2
