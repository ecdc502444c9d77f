"""Typefaces: which characters a font file can draw, which files are the same design, and who may use it.

A *design group* is the unit of every split: all files of one family, and all families that share outlines
(Takao and IPA, for example), fall together into the base's mix, or into a task's train, validation or test part.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dcmerge.zoo.build.glyphs import render_mask
from dcmerge.zoo.build.sources import FONT_PACKAGES, deb_folder

SCRIPTS = {
    "latin": [*range(0x41, 0x5B), *range(0x61, 0x7B)],
    "digit": list(range(0x30, 0x3A)),
    "greek": [c for c in range(0x3B1, 0x3CA) if c != 0x3C2],
    "cyrillic": list(range(0x430, 0x450)),
    "hiragana": [ord(c) for c in "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん"],
    "katakana": [ord(c) for c in "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン"],
    "devanagari": list(range(0x905, 0x939)),
    "arabic": [c for c in range(0x627, 0x64A) if not 0x63B <= c <= 0x640],
    "georgian": list(range(0x10D0, 0x10F0)),
    "hebrew": list(range(0x5D0, 0x5EA)),
    "thai": list(range(0xE01, 0xE2E)),
    "armenian": list(range(0x561, 0x580)),
}
# Packages that hold many unrelated designs are split by family name; everywhere else the package is the group.
MANY_DESIGNS = {
    "fonts-aenigma",
    "fonts-dustin",
    "fonts-georgewilliams",
    "fonts-kalapi",
    "fonts-horai-umefont",
    "fonts-urw-base35",
    "fonts-texgyre",
}
# Seal script, a pixel font and fonts whose kana are empty boxes: not for the kana task.
NOT_KANA = {"fonts-aoyagi-soseki", "fonts-misaki", "fonts-georgewilliams/caslon"}
# Packages whose kana or Latin share outlines.
SAME_DESIGN = {
    "ipa": [
        "fonts-ipaexfont-gothic",
        "fonts-ipaexfont-mincho",
        "fonts-ipamj-mincho",
        "fonts-takao-gothic",
        "fonts-takao-mincho",
        "fonts-mona",
        "fonts-monapo",
    ],
    "mplus": [
        "fonts-mplus",
        "fonts-vlgothic",
        "fonts-migmix",
        "fonts-ricty-diminished",
        "fonts-umeplus",
        "fonts-komatuna",
    ],
    "klee": ["fonts-klee", "fonts-lxgw-wenkai"],
    "kouzan": ["fonts-aoyagi-kouzan-t", "fonts-kouzan-mouhitsu"],
    "yoz": [p for p in FONT_PACKAGES if p.startswith("fonts-yozvox")],
    "noto": ["fonts-noto-core", "fonts-open-sans"],
    "tlwg": [p for p in FONT_PACKAGES if "tlwg" in p],
    "gentium": ["fonts-sil-gentium-basic", "fonts-sil-gentiumplus"],
    "charis": ["fonts-sil-charis", "fonts-sil-doulos"],
    "deja": ["fonts-dejavu-core", "fonts-dejavu-extra"],
}
_GROUP_OF_PACKAGE = {package: group for group, packages in SAME_DESIGN.items() for package in packages}


@dataclass(frozen=True)
class Typeface:
    """One font file: where it is, its design group and the scripts it covers whole."""

    path: str
    group: str
    scripts: tuple[str, ...]


def scan(work: Path) -> list[Typeface]:
    """All usable typefaces of the fetched packages (cached in the work folder as typefaces.json)."""
    cache = work / "typefaces.json"
    if not cache.exists():
        found = [face for package in FONT_PACKAGES for face in _scan_package(work, package)]
        cache.write_text(json.dumps([vars(face) for face in found]))
    return [Typeface(f["path"], f["group"], tuple(f["scripts"])) for f in json.loads(cache.read_text())]


def _scan_package(work: Path, package: str) -> list[Typeface]:
    # needed by the build only, see requirements-zoo.txt
    from fontTools.ttLib import TTFont  # pyright: ignore[reportMissingImports]

    faces = []
    for path in sorted(deb_folder(work, package).rglob("*")):
        if path.suffix.lower() not in {".ttf", ".otf", ".ttc"} or path.is_symlink():
            continue
        try:
            with TTFont(path, fontNumber=0, lazy=True) as font:
                covered = set(font.getBestCmap() or {})
                family = str(font["name"].getDebugName(1)).split("-")[0].split(" ")[0].lower()
        except Exception:
            continue
        scripts = tuple(name for name, codes in SCRIPTS.items() if covered.issuperset(codes))
        group = _GROUP_OF_PACKAGE.get(package, package)
        if package in MANY_DESIGNS:
            group = f"{package}/{family}"
        if scripts:
            faces.append(Typeface(str(path), group, scripts))
    return faces


def choose(faces: list[Typeface], script: str, most: int = 4, latin_only: bool = False) -> dict[str, list[Typeface]]:
    """Design groups that cover `script`, each with at most `most` files evenly picked from its sorted list.

    With latin_only, groups that also hold kana are left out (they serve the kana task).
    """
    kana = {face.group for face in faces if "hiragana" in face.scripts}
    groups: dict[str, list[Typeface]] = {}
    for face in faces:
        unfit = face.group in (kana if latin_only else NOT_KANA)
        if script in face.scripts and not unfit:
            groups.setdefault(face.group, []).append(face)
    return {g: [fs[i] for i in np.linspace(0, len(fs) - 1, min(most, len(fs))).astype(int)] for g, fs in groups.items()}


def split(groups: dict[str, list[Typeface]], shares: dict[str, float], salt: str) -> dict[str, list[Typeface]]:
    """Deal design groups out to parts (part -> share), ordered by a hash of the group's name."""
    ranked = sorted(groups, key=lambda g: zlib.crc32(f"{salt}:{g}".encode()))
    parts, start, total = {}, 0, len(ranked)
    edge = 0.0
    for part, share in shares.items():
        edge += share
        stop = round(edge * total)
        parts[part] = [face for g in ranked[start:stop] for face in groups[g]]
        start = stop
    return parts


def legible(faces: list[Typeface], codes: list[int], keep: float = 0.5) -> list[Typeface]:
    """Keep faces of whose glyphs at least the share `keep` is nearest to the right mean glyph: no symbol fonts."""
    drawn = []
    for face in faces:
        masks = [m for c in codes if (m := render_mask(face.path, chr(c), 16, 14)) is not None]
        if len(masks) == len(codes):
            drawn.append((face, np.stack([m.ravel() for m in masks]).astype(np.float32)))
    if not drawn:
        return []
    mean = np.mean([d for _, d in drawn], axis=0)
    mean = (mean - mean.mean(0)) / np.linalg.norm(mean - mean.mean(0), axis=1, keepdims=True)
    right = [((d - d.mean(0)) @ mean.T).argmax(1) == np.arange(len(codes)) for _, d in drawn]
    return [face for (face, _), hits in zip(drawn, right, strict=True) if hits.mean() >= keep]
