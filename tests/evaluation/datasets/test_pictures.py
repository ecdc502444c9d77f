"""Decoding once, limits, the cache, and images that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from dcmerge.errors import InputError
from dcmerge.evaluation import Preprocess
from dcmerge.evaluation.datasets import LazySplits, Pictures
from dcmerge.vectors.cache import Store
from tests.evaluation.datasets.builders import pictures, save

SMALL = Preprocess((8, 8))


def some(folder: Path, count: int = 12) -> Pictures:
    rows = pictures([n % 3 for n in range(count)], 12)
    paths = [save(folder / f"{n}.png", pixels) for n, (pixels, _) in enumerate(rows)]
    return Pictures.of_files("some", paths, [label for _, label in rows])


def test_a_limit_draws_what_the_split_itself_would(tmp_path: Path) -> None:
    whole = some(tmp_path)
    limited, wanted = whole.limited(5).decoded(SMALL), whole.decoded(SMALL).subset(5)
    assert torch.equal(limited.images, wanted.images) and torch.equal(limited.labels, wanted.labels)
    assert whole.limited(99) is whole and whole.limited(None) is whole


def test_images_come_from_the_cache_until_a_file_or_the_size_changes(tmp_path: Path) -> None:
    store, whole = Store(tmp_path / "cache"), some(tmp_path / "images")
    told: list[str] = []

    def decode(part: Pictures, preprocess: Preprocess = SMALL) -> torch.Tensor:
        told.clear()
        return part.decoded(preprocess, store, lambda share, text: told.append(text)).images

    first = decode(whole)
    assert told and torch.equal(first, whole.decoded(SMALL).images)
    assert torch.equal(decode(whole), first) and not told
    assert torch.equal(decode(whole.take(torch.tensor([3, 1]))), first[[3, 1]]) and told
    assert decode(whole, Preprocess((6, 6))).shape == (12, 3, 6, 6) and told
    os.utime(whole.files[0], ns=(1, 1))
    assert torch.equal(decode(whole), first) and told


def test_a_cache_that_cannot_hold_the_images_changes_nothing(tmp_path: Path) -> None:
    whole = some(tmp_path / "images")
    found = whole.decoded(SMALL, Store(tmp_path / "cache", max_bytes=10)).images
    assert torch.equal(found, whole.decoded(SMALL).images)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    whole = some(tmp_path)
    (tmp_path / "7.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"Cannot read the image .*7\.png of some"):
        whole.decoded(SMALL)
    (tmp_path / "7.png").unlink()
    with pytest.raises(InputError, match=r"7\.png"):
        whole.decoded(SMALL)


def test_a_split_is_decoded_when_it_is_asked_for(tmp_path: Path) -> None:
    told: list[str] = []
    splits = LazySplits({"val": some(tmp_path), "test": some(tmp_path)}, SMALL, None, lambda share, text: told.append(text))
    assert list(splits) == ["val", "test"] and "test" in splits and "train" not in splits and not told
    assert splits["val"] is splits["val"] and len(told) == 12


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\n%%EOF\n"


@pytest.mark.parametrize("name", ["1.png", "1.jpg"])
def test_only_formats_of_data_sets_are_decoded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(InputError, match=rf"{name} of some \(class number 4\): cannot identify image file"):
        Pictures.of_files("some", [tmp_path / name], [4]).image(0)


@pytest.mark.parametrize("suffix", ["jpg", "png", "ppm", "bmp", "tiff", "webp", "gif"])
def test_every_usual_format_is_decoded(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (9, 7), (250, 0, 0)).save(tmp_path / f"1.{suffix}")
    found = Pictures.of_files("some", [tmp_path / f"1.{suffix}"], [0]).image(0).convert("RGB")
    assert found.size == (9, 7) and found.getpixel((4, 4))[0] > 240


def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    for size, told in ((7_000, "at most 40000000 pixels, got 7000 x 7000"), (13_000, "169000000 pixels")):
        Image.new("1", (size, size)).save(tmp_path / "large.png")
        with pytest.raises(InputError, match=rf"large\.png .*{told}"):
            Pictures.of_files("some", [tmp_path / "large.png"], [0]).image(0)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(InputError, match="device, pipe or socket"):
        Pictures.of_files("some", [tmp_path / "1.png"], [0]).image(0)
