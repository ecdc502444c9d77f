"""Seeded geometric and photometric distortions; every function takes its random generator and float images in 0..1."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

SIZE = 32  # side of the zoo's images in pixels


def warp(
    image: np.ndarray,
    rng: np.random.Generator,
    rotate: float,
    scale: tuple[float, float],
    perspective: float,
    wave: float,
    shift: float = 0.06,
    shear: float = 0.0,
) -> np.ndarray:
    """Rotate (degrees), scale, shear, shift, tilt and wave (shares of the side) a square (s, s[, c]) image.

    What comes in from outside the image is 0.
    """
    from scipy.ndimage import map_coordinates  # needed by the build only, see requirements-zoo.txt

    side = image.shape[0]
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / (side - 1) * 2 - 1
    angle = np.deg2rad(rng.uniform(-rotate, rotate))
    size = rng.uniform(*scale)
    tilt = rng.uniform(-perspective, perspective, 2)
    depth = 1 + tilt[0] * x + tilt[1] * y
    x, y = x / depth - rng.uniform(-2 * shift, 2 * shift), y / depth - rng.uniform(-2 * shift, 2 * shift)
    x = x + rng.uniform(-shear, shear) * y
    u = (np.cos(angle) * x + np.sin(angle) * y) / size
    v = (-np.sin(angle) * x + np.cos(angle) * y) / size
    if wave:
        u = u + rng.uniform(0, 2 * wave) * np.sin(rng.uniform(2, 5) * v + rng.uniform(0, 6.3))
        v = v + rng.uniform(0, 2 * wave) * np.sin(rng.uniform(2, 5) * u + rng.uniform(0, 6.3))
    at = np.stack([(v + 1) / 2 * (side - 1), (u + 1) / 2 * (side - 1)])
    if image.ndim == 2:
        return map_coordinates(image, at, order=1, mode="constant", prefilter=False)
    return np.stack(
        [map_coordinates(image[..., c], at, order=1, mode="constant", prefilter=False) for c in range(image.shape[2])],
        -1,
    )


def shrink(image: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Mean over square cells: (k size, k size, ...) -> (size, size, ...)."""
    k = image.shape[0] // size
    return image.reshape(size, k, size, k, *image.shape[2:]).mean((1, 3))


def two_colours(rng: np.random.Generator, contrast: float = 0.35, bright: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Ink and paper colour, (3,) each, with luminances at least `contrast` apart.

    The ink is the lighter one with probability `bright`; None leaves that to chance.
    """
    weights = np.array([0.3, 0.59, 0.11])
    while True:
        ink, paper = rng.uniform(0, 1, 3), rng.uniform(0, 1, 3)
        difference = (ink - paper) @ weights
        if abs(difference) >= contrast:
            turn = bright is not None and (difference > 0) != (rng.random() < bright)
            return (paper, ink) if turn else (ink, paper)


def gradient(rng: np.random.Generator, colour: np.ndarray, strength: float = 0.25) -> np.ndarray:
    """A plain (32, 32, 3) paper with a linear change of light."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / (SIZE - 1) - 0.5
    slope = rng.uniform(-strength, strength, 2)
    return np.clip(colour + (slope[0] * x + slope[1] * y)[..., None], 0, 1)


def photometric(image: np.ndarray, rng: np.random.Generator, blur: float, noise: float, light: float) -> np.ndarray:
    """Vary contrast and brightness by `light`, blur by up to `blur` pixels, add grey noise; float -> uint8."""
    out = (image - 0.5) * rng.uniform(1 - light, 1 + light) + 0.5 + rng.uniform(-light, light) / 2
    sigma = rng.uniform(0, blur)
    picture = Image.fromarray((np.clip(out, 0, 1) * 255).astype(np.uint8))
    if sigma > 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(sigma))
    out = np.asarray(picture, np.float32) / 255 + rng.normal(0, rng.uniform(0, noise) + 1e-6, (*image.shape[:2], 1))
    return (np.clip(out, 0, 1) * 255).round().astype(np.uint8)


def jitter_colour(image: np.ndarray, rng: np.random.Generator, strength: float, grey: float) -> np.ndarray:
    """Mix the channels with a random matrix near the identity; with probability `grey` drop the colour."""
    if rng.random() < grey:
        return np.repeat(image.mean(-1, keepdims=True), 3, -1)
    mix = np.eye(3) + rng.uniform(-strength, strength, (3, 3))
    mix /= np.abs(mix).sum(1, keepdims=True)
    return np.clip(image @ mix.T, 0, 1)
