"""Emoji of five vendors, flags and clip art, as 64x64 RGBA pictures with their names."""

from __future__ import annotations

import io
import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from dcmerge.zoo.build.sources import deb_folder, npm_folder

SIDE = 64
# code point -> name (as Fluent UI Emoji call it) of the emoji task's classes
EMOJI = {
    "1F600": "grinning face",
    "2764-FE0F": "red heart",
    "1F44D": "thumbs up",
    "1F436": "dog face",
    "1F431": "cat face",
    "1F42D": "mouse face",
    "1F43B": "bear",
    "1F438": "frog",
    "1F427": "penguin",
    "1F41F": "fish",
    "1F41D": "honeybee",
    "1F98B": "butterfly",
    "1F344": "mushroom",
    "1F339": "rose",
    "1F335": "cactus",
    "1F34E": "red apple",
    "1F34C": "banana",
    "1F347": "grapes",
    "1F353": "strawberry",
    "1F349": "watermelon",
    "1F355": "pizza",
    "1F354": "hamburger",
    "1F366": "soft ice cream",
    "1F370": "shortcake",
    "1F37A": "beer mug",
    "1F697": "automobile",
    "1F68C": "bus",
    "1F680": "rocket",
    "2708-FE0F": "airplane",
    "1F3E0": "house",
    "2602-FE0F": "umbrella",
    "1F3B8": "guitar",
}
# name -> emoji-datasource's subcategories: coarse words for the base's captions
EMOJI_GROUPS = {
    "faces": [
        "face-smiling",
        "face-affection",
        "face-tongue",
        "face-hand",
        "face-neutral-skeptical",
        "face-sleepy",
        "face-unwell",
        "face-hat",
        "face-glasses",
        "face-concerned",
        "face-negative",
    ],
    "hands": [
        "hand-fingers-open",
        "hand-fingers-partial",
        "hand-single-finger",
        "hand-fingers-closed",
        "hands",
        "hand-prop",
    ],
    "people": ["person", "person-gesture", "person-role", "person-fantasy"],
    "mammals": ["animal-mammal"],
    "birds": ["animal-bird"],
    "insects and sea animals": ["animal-bug", "animal-marine"],
    "plants": ["plant-flower", "plant-other"],
    "fruit and vegetables": ["food-fruit", "food-vegetable"],
    "dishes": ["food-prepared", "food-asian", "food-sweet"],
    "vehicles": ["transport-ground", "transport-air", "transport-water"],
    "buildings": ["place-building", "place-religious"],
    "clothing": ["clothing"],
}
FLAG_COUNTRIES = {
    "ar": "Argentina",
    "au": "Australia",
    "at": "Austria",
    "be": "Belgium",
    "br": "Brazil",
    "ca": "Canada",
    "cl": "Chile",
    "cn": "China",
    "co": "Colombia",
    "hr": "Croatia",
    "cu": "Cuba",
    "cz": "Czechia",
    "dk": "Denmark",
    "eg": "Egypt",
    "ee": "Estonia",
    "fi": "Finland",
    "fr": "France",
    "de": "Germany",
    "gr": "Greece",
    "in": "India",
    "ie": "Ireland",
    "il": "Israel",
    "it": "Italy",
    "jm": "Jamaica",
    "jp": "Japan",
    "ke": "Kenya",
    "mx": "Mexico",
    "nl": "Netherlands",
    "ng": "Nigeria",
    "no": "Norway",
    "pk": "Pakistan",
    "pl": "Poland",
    "pt": "Portugal",
    "kr": "South Korea",
    "es": "Spain",
    "se": "Sweden",
    "ch": "Switzerland",
    "tr": "Turkey",
    "gb": "United Kingdom",
    "us": "United States",
}


def render_svg(svg: str) -> np.ndarray:
    """SVG text -> (64, 64, 4) uint8, fitted and centred."""
    import resvg_py  # pyright: ignore[reportMissingImports] (needed by the build only, see requirements-zoo.txt)

    return _fit(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE)))))


def _fit(image: Image.Image) -> np.ndarray:
    image = image.convert("RGBA")
    image.thumbnail((SIDE, SIDE))
    board = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    board.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return np.asarray(board)


@lru_cache(maxsize=2)
def emoji_table(work: Path) -> list[dict]:
    """emoji-datasource's records (name, subcategory, code points); skin tones are left out."""
    return json.loads((npm_folder(work, "emoji-datasource") / "emoji.json").read_text())


def emoji_picture(work: Path, vendor: str, record: dict) -> np.ndarray | None:
    """One emoji drawn by "google", "twitter" or "openmoji"; None where that vendor has none."""
    if vendor in {"google", "twitter"}:
        folder = npm_folder(work, f"emoji-datasource-{vendor}") / "img" / vendor / "64"
        path = folder / record["image"]
        return _fit(Image.open(path)) if path.exists() and record[f"has_img_{vendor}"] else None
    folder = npm_folder(work, "openmoji") / "color" / "svg"
    for code in (record["unified"], record["non_qualified"]):
        if code and (folder / f"{code}.svg").exists():
            return render_svg((folder / f"{code}.svg").read_text())
    return None


def emoji_of_classes(work: Path, vendor: str) -> list[tuple[int, np.ndarray]]:
    """The pictures (class, picture) of EMOJI by "google", "twitter", "fluent" or "openmoji"."""
    if vendor == "fluent":
        drawn = dict(iconify(work, "fluent-emoji-flat"))
        return [(i, drawn[name]) for i, name in enumerate(EMOJI.values())]
    by_code = {record["unified"]: record for record in emoji_table(work)}
    found = [(i, emoji_picture(work, vendor, by_code[code])) for i, code in enumerate(EMOJI)]
    return [(i, picture) for i, picture in found if picture is not None]


def flag_emoji(work: Path, vendor: str) -> list[tuple[int, np.ndarray]]:
    """The forty flags (class, picture) by one vendor."""
    by_code = {record["unified"]: record for record in emoji_table(work)}
    found = []
    for i, code in enumerate(FLAG_COUNTRIES):
        unified = "-".join(f"{0x1F1E6 + ord(c) - ord('a'):X}" for c in code)
        picture = emoji_picture(work, vendor, by_code[unified])
        if picture is not None:
            found.append((i, picture))
    return found


def iconify(work: Path, name: str) -> list[tuple[str, np.ndarray]]:
    """All icons of an @iconify-json set: (words, picture)."""
    data = json.loads((npm_folder(work, f"@iconify-json/{name}") / "icons.json").read_text())
    found = []
    for icon, body in data["icons"].items():
        size = body.get("width", data.get("width", 16)), body.get("height", data.get("height", 16))
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}">{body["body"]}</svg>'
        found.append((icon.replace("-", " "), render_svg(svg)))
    return found


def flag_icons(work: Path) -> list[tuple[str, np.ndarray]]:
    """flag-icons' clean flags of all countries: (country, picture)."""
    root = npm_folder(work, "flag-icons")
    names = {c["code"]: c["name"] for c in json.loads((root / "country.json").read_text())}
    files = sorted((root / "flags" / "4x3").glob("*.svg"))
    return [(names[f.stem], render_svg(f.read_text())) for f in files if f.stem in names]


def clip_art(work: Path) -> list[tuple[str, np.ndarray]]:
    """openclipart and Tux Paint stamps: (caption from the file's name and folder or from its description, picture)."""
    found = []
    for path in sorted((deb_folder(work, "openclipart-png") / "usr/share/openclipart/png").rglob("*.png")):
        words = re.split(r"\d|_", path.stem.replace("-", "_"))
        words = [w for w in words if w.isalpha() and len(w) > 2][:3]
        found.append((" ".join([*words, ",", path.parent.name.replace("_", " ")]), path))
    for path in sorted((deb_folder(work, "tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps").rglob("*.png")):
        text = path.with_suffix(".txt")
        if text.exists():
            found.append((text.read_text(errors="replace").splitlines()[0].strip(". "), path))
    return [(caption, picture) for caption, path in found if (picture := _open(path)) is not None]


def _open(path: Path) -> np.ndarray | None:
    """A picture file, or None when it is broken or so large that decoding it is not worth the time."""
    try:
        with Image.open(path) as image:
            return _fit(image) if max(image.size) <= 1600 else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # broken or huge
        return None
