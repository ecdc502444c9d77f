"""Photographs: backgrounds (split by photo) and sixteen surfaces (split by region of the photo)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from dcmerge.zoo.build.distortions import SIZE
from dcmerge.zoo.build.sources import deb_folder

# class name -> photo ("mate/..." from Debian's mate-backgrounds, "sk/..." from scikit-image's own data)
SURFACES = {
    "brick wall": "sk/brick.png",
    "dry lawn": "sk/grass.png",
    "gravel": "sk/gravel.png",
    "cat fur": "sk/chelsea.png",
    "coins": "sk/coins.png",
    "stars": "sk/hubble_deep_field.jpg",
    "stained tissue": "sk/ihc.png",
    "moon surface": "sk/moon.png",
    "space suit": "sk/astronaut.png",
    "printed page": "sk/page.png",
    "retina": "sk/retina.jpg",
    "palm leaf": "mate/Blinds.jpg",
    "red petals": "mate/FreshFlower.jpg",
    "green meadow": "mate/GreenMeadow.jpg",
    "rain drops": "mate/RainDrops.jpg",
    "wooden board": "mate/Wood.jpg",
}
# part -> photo -> coarse captions of its crops; also the backgrounds behind street digits, flags and emoji
BACKGROUNDS = {
    "train": {
        "sklearn/china.jpg": "a temple roof and trees",
        "sk/coffee.png": "a cup of coffee on a table",
        "mate/Garden.jpg": "orange and red flowers",
        "mate/Storm.jpg": "a dark sky over a road",
        "mate/LadyBird.jpg": "blue flowers and grass",
        "mate/YellowFlower.jpg": "a yellow flower",
    },
    "val": {"sk/rocket.jpg": "a rocket at night", "sk/camera.png": "a man with a camera"},
    "test": {
        "sklearn/flower.jpg": "an orange flower",
        "mate/Dune.jpg": "dry grass by the sea",
        "mate/TwoWings.jpg": "dandelion seeds",
        "mate/Aqua.jpg": "a drop of water",
    },
}


@lru_cache(maxsize=64)
def load(work: Path, name: str, longest: int = 900) -> np.ndarray:
    """One photo as (h, w, 3) uint8, its longer side at most `longest` pixels."""
    import skimage  # pyright: ignore[reportMissingImports] (needed by the build only, see requirements-zoo.txt)
    import sklearn  # pyright: ignore[reportMissingImports]

    kind, file = name.split("/")
    folder = {
        "sk": Path(skimage.__path__[0]) / "data",
        "sklearn": Path(sklearn.__path__[0]) / "datasets" / "images",
        "mate": deb_folder(work, "mate-backgrounds") / "usr/share/backgrounds/mate/nature",
    }[kind]
    image = Image.open(folder / file).convert("RGB")
    image.thumbnail((longest, longest))
    return np.asarray(image)


def crop(photo: np.ndarray, rng: np.random.Generator, box: tuple[int, int, int, int], side: tuple[int, int]) -> np.ndarray:
    """A random square inside box (top, left, bottom, right), shrunk to (32, 32, 3) float 0..1, maybe mirrored."""
    top, left, bottom, right = box
    size = min(int(rng.integers(side[0], side[1] + 1)), bottom - top, right - left)
    y, x = rng.integers(top, bottom - size + 1), rng.integers(left, right - size + 1)
    piece = Image.fromarray(photo[y : y + size, x : x + size]).resize((SIZE, SIZE), Image.Resampling.BOX)
    out = np.asarray(piece, np.float32) / 255
    return out[:, ::-1] if rng.random() < 0.5 else out


def background(work: Path, part: str, rng: np.random.Generator) -> np.ndarray:
    """A random crop of a random background photo of the given part, (32, 32, 3) float."""
    names = list(BACKGROUNDS[part])
    photo = load(work, names[rng.integers(len(names))])
    return crop(photo, rng, (0, 0, *photo.shape[:2]), (40, 200))


def regions(photo: np.ndarray, seed: int) -> dict[str, list[tuple[int, int, int, int]]]:
    """Cut a photo into a grid of blocks and deal them out: 60 % train, 12 % val, 28 % test; blocks never overlap.

    Returns part -> boxes (top, left, bottom, right). Crops must stay inside one block.
    """
    rows, columns = max(3, photo.shape[0] // 75), max(4, photo.shape[1] // 75)
    ys, xs = (
        np.linspace(0, photo.shape[0], rows + 1).astype(int),
        np.linspace(0, photo.shape[1], columns + 1).astype(int),
    )
    boxes = [(ys[i], xs[j], ys[i + 1], xs[j + 1]) for i in range(rows) for j in range(columns)]
    # Blocks without content (the retina picture's black border, plain grey moon) cannot be told apart: left out.
    boxes = [b for b in boxes if photo[b[0] : b[2], b[1] : b[3]].std() > 4 and photo[b[0] : b[2], b[1] : b[3]].mean() > 4]
    order = np.random.default_rng(seed).permutation(len(boxes))
    first, second = round(0.6 * len(boxes)), round(0.72 * len(boxes))
    parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    return {part: [boxes[i] for i in indices] for part, indices in parts.items()}
