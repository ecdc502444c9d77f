"""Draw the images of the rendered tasks: letters, kana, street digits, emoji, flags, textures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dcmerge.zoo.build import distortions as d
from dcmerge.zoo.build import photos
from dcmerge.zoo.build.glyphs import render_mask
from dcmerge.zoo.build.typefaces import Typeface

Sampler = Callable[[int, np.random.Generator], np.ndarray | None]  # (class, generator) -> image, or None: try again


def paper(work: Path, part: str, colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A background: plain with a change of light (half of the time) or a photo crop drawn towards `colour`."""
    if rng.random() < 0.5:
        return d.gradient(rng, colour)
    return np.clip(0.45 * photos.background(work, part, rng) + 0.55 * colour, 0, 1)


def glyph(work: Path, part: str, faces: list[Typeface], texts: list[str]) -> Sampler:
    """Distorted, coloured characters; class i is any character of texts[i]."""

    def sample(label: int, rng: np.random.Generator) -> np.ndarray | None:
        face = faces[rng.integers(len(faces))]
        mask = render_mask(face.path, texts[label][rng.integers(len(texts[label]))])
        if mask is None:
            return None
        alpha = d.shrink(d.warp(mask / 255.0, rng, rotate=12, scale=(0.95, 1.2), perspective=0.12, wave=0.03, shear=0.15))
        ink, ground = d.two_colours(rng, 0.45, bright=0.9)
        alpha = np.clip(alpha * rng.uniform(1.0, 1.5), 0, 1)[..., None]
        image = paper(work, part, ground, rng) * (1 - alpha) + d.gradient(rng, ink) * alpha
        return d.photometric(image, rng, blur=0.8, noise=0.06, light=0.2)

    return sample


def street(work: Path, part: str, faces: list[Typeface]) -> Sampler:
    """House-number-like digits: neighbours left and right, a photo behind, slight blur, tilt and colour."""

    def sample(label: int, rng: np.random.Generator) -> np.ndarray | None:
        face = faces[rng.integers(len(faces))]
        digits = [
            str(rng.integers(10)) if rng.random() < 0.7 else "",
            str(label),
            str(rng.integers(10)) if rng.random() < 0.7 else "",
        ]
        board, gap = np.zeros((96, 96)), int(rng.integers(30, 42))
        for at, digit in zip((-gap, 0, gap), digits, strict=True):
            mask = render_mask(face.path, digit, 96, 50) if digit else None
            if mask is not None:
                board = np.maximum(board, np.roll(mask, at, 1) / 255.0)
            elif digit == str(label) and at == 0:
                return None
        alpha = d.warp(board, rng, rotate=8, scale=(1.0, 1.3), perspective=0.12, wave=0.02, shear=0.1)[16:80, 16:80]
        alpha = np.clip(d.shrink(alpha) * rng.uniform(0.9, 1.4), 0, 1)[..., None]
        ink, ground = d.two_colours(rng, 0.35, bright=0.8)
        behind = photos.background(work, part, rng)
        behind = np.clip((1 - (mix := rng.uniform(0.4, 0.85))) * behind + mix * ground, 0, 1)
        return d.photometric(behind * (1 - alpha) + d.gradient(rng, ink) * alpha, rng, blur=1.0, noise=0.06, light=0.25)

    return sample


def picture(work: Path, part: str, sources: list[tuple[int, np.ndarray]], strength: float, mirror: bool) -> Sampler:
    """Emoji or flags (class, 64x64 RGBA): warped, lit, coloured and put before a background."""
    by_class: dict[int, list[np.ndarray]] = {}
    for label, image in sources:
        by_class.setdefault(label, []).append(image)

    def sample(label: int, rng: np.random.Generator) -> np.ndarray:
        image = by_class[label][rng.integers(len(by_class[label]))] / 255.0
        if mirror and rng.random() < 0.5:
            image = image[:, ::-1]
        image = np.concatenate([image[..., :3] * image[..., 3:], image[..., 3:]], -1)  # premultiplied, so that edges stay clean
        turned = d.warp(
            image,
            rng,
            rotate=28 * strength,
            scale=(0.75, 1.2),
            perspective=0.3 * strength,
            wave=0.07 * strength,
            shear=0.2 * strength,
        )
        small = d.shrink(turned)
        light = d.gradient(rng, np.full(3, rng.uniform(0.6, 1.0)), strength) + 0.0
        front = d.jitter_colour(np.clip(small[..., :3] * light, 0, 1), rng, 0.18 * strength, 0.06 * strength)
        behind = paper(work, part, rng.uniform(0, 1, 3), rng)
        return d.photometric(front + behind * (1 - small[..., 3:]), rng, blur=1.0 * strength, noise=0.08 * strength, light=0.3)

    return sample


def texture(work: Path, part: str, seed: int) -> Sampler:
    """Patches of the sixteen surfaces from the part's own regions, turned, recoloured, blurred and noisy."""
    names = list(photos.SURFACES.values())
    boxes = [photos.regions(photos.load(work, name, 480), seed)[part] for name in names]

    def sample(label: int, rng: np.random.Generator) -> np.ndarray:
        photo, box = photos.load(work, names[label], 480), boxes[label][rng.integers(len(boxes[label]))]
        patch = np.rot90(photos.crop(photo, rng, box, (34, 75)), int(rng.integers(4)))
        patch = d.jitter_colour(patch, rng, 0.12, 0.1)
        patch = (patch - patch.mean()) * rng.uniform(0.7, 1.5) + patch.mean() + rng.uniform(-0.1, 0.1)
        return d.photometric(patch, rng, blur=0.9, noise=0.05, light=0.25)

    return sample
