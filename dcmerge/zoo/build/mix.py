"""The base's pre-training mix: broad, clean, coarsely captioned; without the tasks' typefaces and vendors."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np

from dcmerge.zoo.build import distortions as d
from dcmerge.zoo.build import photos, pictures, pools, render, typefaces
from dcmerge.zoo.build.glyphs import render_mask
from dcmerge.zoo.build.sources import npm_folder
from dcmerge.zoo.build.tasks import DIGITS

# kind -> caption templates; "{}" is the concept
TEMPLATES = {
    "glyph": ("{}", "a picture of {}", "a printed {}"),
    "picture": ("{}", "a picture of {}", "an emoji of {}", "a drawing of {}"),
    "emoji": ("{}", "an emoji of {}", "a picture of {}"),
    "clip": ("{}", "a drawing of {}"),
    "flag": ("the flag of {}", "a picture of the flag of {}", "{}"),
    "photo": ("{}", "a photo of {}", "a texture of {}"),
}
KINDS = tuple(TEMPLATES)
# Vendors whose drawings of the emoji task's classes the base sees; none of them is one of the task's own.
EMOJI_SETS = ("fluent-emoji-flat", "fxemoji", "noto-v1", "streamline-emojis")
EMOJI_COUNT = 6400
EMOJI_ALIASES = {
    "bear face": "bear",
    "frog face": "frog",
    "heart suit": "red heart",
    "house with garden": "house",
}
# What the base is told of the surfaces' training regions, and of Fashion-MNIST: coarse words only.
COARSE_SURFACE = {
    "brick wall": "a stone wall",
    "dry lawn": "grass",
    "gravel": "stone",
    "cat fur": "an animal",
    "coins": "round things",
    "stars": "the night sky",
    "stained tissue": "something under a microscope",
    "moon surface": "a planet",
    "space suit": "a person",
    "printed page": "printed text",
    "retina": "something red",
    "palm leaf": "green leaves",
    "red petals": "flowers",
    "green meadow": "grass",
    "rain drops": "green leaves",
    "wooden board": "wood",
}
COARSE_FASHION = [
    "a top",
    "trousers",
    "a top",
    "a dress",
    "a top",
    "footwear",
    "a top",
    "footwear",
    "a bag",
    "footwear",
]
SCRIPT_SHARES = {
    "latin": 20000,
    "digit": 12000,
    "hiragana": 20000,
    "greek": 3000,
    "katakana": 3000,
    "cyrillic": 3000,
    "devanagari": 500,
    "arabic": 500,
}


class Mix:
    """Collects images with their concept (a phrase) and kind (an index into KINDS)."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self.concepts: list[str] = []
        self.kinds: list[int] = []

    def add(self, image: np.ndarray, concept: str, kind: str) -> None:
        """Add one (32, 32, 3) image: uint8, or float 0..1."""
        self.images.append(image if image.dtype == np.uint8 else (np.clip(image, 0, 1) * 255).round().astype(np.uint8))
        self.concepts.append(concept)
        self.kinds.append(KINDS.index(kind))

    def save(self, path: Path) -> None:
        """Write images, concept ids and kinds to an npz file."""
        names = sorted(set(self.concepts))
        number = {name: i for i, name in enumerate(names)}
        np.savez(
            path.with_suffix(".part.npz"),
            images=np.stack(self.images),
            kinds=np.array(self.kinds, np.int64),
            concepts=np.array([number[c] for c in self.concepts], np.int64),
            names=np.array(names),
        )
        path.with_suffix(".part.npz").rename(path)


def build(work: Path, seed: int, share: float = 1.0) -> None:
    """Make the mix and save it as pools/base.npz; `share` scales the number of images."""
    path = work / "pools" / "base.npz"
    if path.exists():
        return
    mix = Mix()
    _add_glyphs(mix, work, pools.generator(seed, "base", "glyphs"), share)
    _add_pictures(mix, work, pools.generator(seed, "base", "pictures"), share)
    _add_emoji(mix, work, pools.generator(seed, "base", "emoji"), share)
    _add_photos(mix, work, seed, share)
    images, labels = pools.load(work, "fashion", "base")
    for i in range(round(len(labels) * share)):
        mix.add(images[i], COARSE_FASHION[labels[i]], "photo")
    mix.save(path)


def concept_of(character: str) -> str:
    """The caption of a character, from its Unicode name ("latin capital letter a" -> "the letter a")."""
    if character.isdigit():
        return f"the digit {DIGITS[int(character)]}"
    name = unicodedata.name(character).lower().replace("small ", "").replace("capital ", "")
    return "the " + name.replace("latin ", "")


def _add_glyphs(mix: Mix, work: Path, rng: np.random.Generator, share: float) -> None:
    parts = pools.font_parts(work)
    faces = typefaces.scan(work)
    for script, count in SCRIPT_SHARES.items():
        known = parts.get(script) or {"base": [f for fs in typefaces.choose(faces, script).values() for f in fs]}
        codes = [c for c in typefaces.SCRIPTS[script] if script != "latin" or c < 0x61]  # capitals only
        done = 0
        while done < count * share:
            face, character = known["base"][rng.integers(len(known["base"]))], chr(codes[rng.integers(len(codes))])
            mask = render_mask(face.path, character, 64, int(rng.integers(44, 58)))
            if mask is None or not character.isprintable():
                done += 0.05  # a font without this glyph must not stall the loop
                continue
            mix.add(_clean_glyph(mask, rng), concept_of(character), "glyph")
            done += 1


def _clean_glyph(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Plain ink on plain paper, upright: mostly white on black, some black on white, some in two colours.

    With colours in half of the pictures and both polarities equally often, characters stayed at chance for a long time.
    """
    shift = rng.integers(-3, 4, 2)
    alpha = d.shrink(np.roll(mask, shift, (0, 1)) / 255.0)[..., None]
    draw = rng.random()
    if draw < 0.85:
        ink, ground = (np.ones(3), np.zeros(3)) if draw < 0.65 else (np.zeros(3), np.ones(3))
    else:
        ink, ground = d.two_colours(rng, 0.45)
    return ground * (1 - alpha) + ink * alpha


def _flat(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture, slightly moved and scaled, on white or on a plain colour."""
    image = picture / 255.0
    image = np.concatenate([image[..., :3] * image[..., 3:], image[..., 3:]], -1)
    small = d.shrink(d.warp(image, rng, rotate=5, scale=(0.85, 1.05), perspective=0, wave=0, shift=0.03))
    ground = np.ones(3) if rng.random() < 0.5 else rng.uniform(0, 1, 3)
    return small[..., :3] + ground * (1 - small[..., 3:])


def _add_pictures(mix: Mix, work: Path, rng: np.random.Generator, share: float) -> None:
    groups = _group_of_fluent(work)
    sets = [
        ("picture", 3, pictures.iconify(work, "fluent-emoji-flat")),
        ("picture", 4, pictures.iconify(work, "fxemoji")),
        ("picture", 2, pictures.iconify(work, "flat-color-icons")),
        ("clip", 1, pictures.clip_art(work)),
        ("flag", 24, pictures.flag_icons(work)),
    ]
    for kind, times, found in sets:
        for words, picture in found:
            if any(tone in words for tone in ("skin tone", "dark", "medium", "light skin")):
                continue
            for _ in range(times if share >= 1 else int(rng.random() < times * share)):
                concept = groups[words] if words in groups and rng.random() < 0.5 else words
                mix.add(_flat(picture, rng), concept, kind)


def _add_emoji(mix: Mix, work: Path, rng: np.random.Generator, share: float) -> None:
    """The emoji task's classes by other vendors, a little distorted and before backgrounds.

    As one of thousands of clean pictures each class was seen too seldom to be known in OpenMoji's style (zero-shot 9 %).
    """
    classes = {name: label for label, name in enumerate(pictures.EMOJI.values())}
    sources = [
        (classes[name], picture)
        for source in EMOJI_SETS
        for words, picture in pictures.iconify(work, source)
        if (name := emoji_class(words)) in classes
    ]
    sample = render.picture(work, "train", sources, 0.2, mirror=True)
    names = list(classes)
    for i in range(round(EMOJI_COUNT * share)):
        image = sample(i % len(names), rng)
        if image is not None:
            mix.add(image, names[i % len(names)], "emoji")


def emoji_class(words: str) -> str:
    """The emoji task's class of an icon's name, which may carry a number or another word for it; else the name itself."""
    name = words.rstrip("0123456789 ")
    return EMOJI_ALIASES.get(name, name)


def _group_of_fluent(work: Path) -> dict[str, str]:
    """Name of a Fluent emoji -> its group (one of EMOJI_GROUPS, else emoji-datasource's category)."""
    classes = {sub: name for name, subs in pictures.EMOJI_GROUPS.items() for sub in subs}
    category = {}
    for record in pictures.emoji_table(work):
        for code in (record["unified"], record["non_qualified"]):
            if code:
                category[code.lower()] = classes.get(record["subcategory"], record["category"].lower())
    characters = json.loads((npm_folder(work, "@iconify-json/fluent-emoji-flat") / "chars.json").read_text())
    return {icon.replace("-", " "): category[code] for code, icon in characters.items() if code in category}


def _add_photos(mix: Mix, work: Path, seed: int, share: float) -> None:
    rng = pools.generator(seed, "base", "photos")
    for name, words in photos.BACKGROUNDS["train"].items():
        photo = photos.load(work, name)
        for _ in range(round(500 * share)):
            mix.add(photos.crop(photo, rng, (0, 0, *photo.shape[:2]), (60, 250)), words, "photo")
    for surface, name in photos.SURFACES.items():
        photo = photos.load(work, name, 480)
        boxes = photos.regions(photo, seed)["train"]
        for _ in range(round(400 * share)):
            words = surface if rng.random() < 0.5 else COARSE_SURFACE[surface]
            mix.add(photos.crop(photo, rng, boxes[rng.integers(len(boxes))], (60, 75)), words, "photo")
