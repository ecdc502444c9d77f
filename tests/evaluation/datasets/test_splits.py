"""The literature's rules: which images they choose, at which sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from dcmerge.errors import InputError
from dcmerge.evaluation.datasets import DATA_SETS, Pictures, divide, known_data_set, prompts
from dcmerge.evaluation.datasets.known import spoken


def part(name: str, count: int) -> Pictures:
    return Pictures.of(name, torch.zeros(count), lambda place: Image.new("L", (1, 1)), [Path(name)], one_each=False)


def sizes(name: str, rule: str, **counts: int) -> tuple[int, int]:
    splits, _ = divide({own: part(own, count) for own, count in counts.items()}, rule, name)
    return len(splits["val"]), len(splits["test"])


def test_mnists_validation_images_are_those_of_the_published_code() -> None:
    """The published split keeps image 36044 as the first of the training images that remain; the last 5000 are validation."""
    splits, text = divide({"train": part("train", 60000), "test": part("test", 10000)}, "task_arithmetic", "MNIST")
    order = torch.randperm(60000, generator=torch.Generator().manual_seed(0))
    assert order[0] == 36044 and torch.equal(splits["val"].places, order[55000:])
    assert text == "val: 5000 of 60000 training images (10 %, at most 5000, seed 0); test: the official 10000"
    remaining, wanted = torch.utils.data.random_split(range(60000), [55000, 5000], torch.Generator().manual_seed(0))
    assert list(wanted) == splits["val"].places.tolist() and remaining[0] == 36044


@pytest.mark.parametrize(
    ("name", "counts", "val", "test"),
    [
        ("Flowers102", {"train": 1020, "val": 1020, "test": 6149}, 102, 6149),
        ("RenderedSST2", {"train": 6920, "val": 872, "test": 1821}, 692, 1821),
        ("FER2013", {"train": 28709, "test": 7178}, 2870, 7178),
        ("PCAM", {"train": 262144, "val": 32768, "test": 32768}, 5000, 32768),
        ("EuroSAT", {"train": 21600, "val": 2700, "test": 2700}, 2700, 2700),
        ("EuroSAT", {"all": 27000}, 2700, 2700),
        ("SUN397", {"train": 19850, "val": 19850}, 1985, 19850),
    ],
)
def test_sizes_of_the_fully_fine_tuned_checkpoints(name: str, counts: dict, val: int, test: int) -> None:
    assert sizes(name, "task_arithmetic", **counts) == (val, test)


@pytest.mark.parametrize(
    ("name", "counts", "val", "test"),
    [
        ("Cars", {"train": 8144, "test": 8041}, 1608, 6433),
        ("DTD", {"train": 1880, "val": 1880, "test": 1880}, 1880, 1880),
        ("GTSRB", {"train": 26640, "test": 12630}, 2526, 10104),
        ("MNIST", {"train": 60000, "test": 10000}, 2000, 8000),
        ("RESISC45", {"train": 18900, "val": 6300, "test": 6300}, 6300, 6300),
        ("SUN397", {"train": 19850, "test": 19850}, 3970, 15880),
        ("SVHN", {"train": 73257, "test": 26032}, 5206, 20826),
    ],
)
def test_sizes_of_the_lora_checkpoints(name: str, counts: dict, val: int, test: int) -> None:
    assert sizes(name, "lora", **counts) == (val, test)


@pytest.mark.parametrize("counts", [{"test": 50}, {"all": 40}, {"train": 40}, {"train": 30, "val": 10}, {"train": 30, "test": 9}])
def test_no_image_is_validation_and_test_at_once(counts: dict) -> None:
    splits, _ = divide({own: part(own, count) for own, count in counts.items()}, "task_arithmetic")
    val, test = ({(own.name, place) for place in own.places.tolist()} for own in splits.values())
    assert val and test and not val & test


@pytest.mark.parametrize("counts", [{}, {"all": 1}, {"test": 1}, {"train": 0, "test": 0}])
def test_too_few_images_are_refused(counts: dict) -> None:
    with pytest.raises(InputError, match="expected images for validation and for test"):
        divide({own: part(own, count) for own, count in counts.items()}, "task_arithmetic")


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(InputError, match="split rule"):
        divide({"all": part("all", 50)}, "other")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("MNISTVal", "MNIST"),
        ("stanford-cars", "Cars"),
        ("stanford_cars", "Cars"),
        ("sun397", "SUN397"),
        ("svhn", "SVHN"),
        ("oxford-iiit-pet", "OxfordIIITPet"),
        ("oxfordpets", "OxfordIIITPet"),
        ("oxford_flowers102", "Flowers102"),
        ("rendered-sst2", "RenderedSST2"),
        ("sst2", "RenderedSST2"),
        ("fashion_mnist", "FashionMNIST"),
        ("cifar-100", "CIFAR100"),
        ("emnist_letters", "EMNISTLetters"),
        ("emnist", "EMNIST"),
        ("fer2013_dataset", "FER2013"),
        ("NWPU-RESISC45", "RESISC45"),
        ("cats", None),
        ("", None),
        ("val", None),
    ],
)
def test_names_of_tasks(name: str, wanted: str | None) -> None:
    found = known_data_set(name)
    assert (found and found.name) == wanted


def test_every_known_data_set_has_sentences_of_its_kind() -> None:
    assert all(prompts(one.kind, "x") != prompts("picture", "x") for one in DATA_SETS.values())
    assert all("x y" in text for text in prompts("nothing known", "x y"))


@pytest.mark.parametrize(
    ("name", "words"), [("AnnualCrop", "annual crop"), ("SVHN", "SVHN"), ("a_b/c", "a b c"), ("BMW M3", "BMW M3")]
)
def test_names_as_words(name: str, words: str) -> None:
    assert spoken(name) == words
