"""Encoders that nobody can build, pictures that are none, and heads that do not fit."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from dcmerge.evaluation import ImageEncoder
from tests.corpus.making import Case, Expected, raw

TOWER: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "layers": 1, "width": 16, "head_width": 8, "patch_size": 4},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
}
CLASSES = ("cat", "dog")
HEAD = torch.eye(2, 8)
#: What is laid into the set, and what is changed of it: settings of the encoder, a picture, the head's file.
Spoil = Callable[[Path], object]


@cache
def _shapes() -> Mapping[str, tuple[int, ...]]:
    return ImageEncoder(TOWER).shapes


def _weights(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in _shapes().items()}


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)


def evaluated(folder: Path, spoil: Spoil, *more: str) -> list[str]:
    """Evaluate a base and an expert on one data set of four pictures, of which something is spoiled."""
    for seed, name in enumerate(("base", "pets")):
        save_file(_weights(seed), folder / f"{name}.safetensors")
    for number, part in enumerate(("train", "test")):
        for place, name in enumerate(CLASSES):
            for copy in range(2):
                _picture(folder / "data" / "pets" / part / name / f"{copy}.png", 10 * number + 2 * place + copy)
    raw(folder / "tower.json", json.dumps(TOWER))
    (folder / "heads").mkdir()
    torch.save(HEAD, folder / "heads" / "pets_head.pt")
    spoil(folder)
    models = [f"--base={folder / 'base.safetensors'}", f"--expert=pets={folder / 'pets.safetensors'}"]
    bench = [f"--encoder={folder / 'tower.json'}", f"--data={folder / 'data'}", f"--heads={folder / 'heads'}"]
    return ["evaluate", *models, *bench, "--method=average", "--scale=1", "--split-rule=official", *more]


def _vision(**changed: Any) -> Any:
    return {**TOWER, "vision_cfg": {**TOWER["vision_cfg"], **changed}}


def _pixels(**preprocess: Any) -> Any:
    return {**TOWER, "preprocess": preprocess}


ENCODERS: dict[str, tuple[Any, Expected]] = {
    "a list": ([], "refused"),
    "null": (None, "refused"),
    "half a text": (b'{"embed_dim": 8', "refused"),
    "bytes": (b"\xff\xfe\xfd", "refused"),
    "deep": (b'{"vision_cfg":' * 30_000, "refused"),
    "nothing": ({}, "refused"),
    "no text tower": ({key: value for key, value in TOWER.items() if key != "text_cfg"}, "refused"),
    "a tower in a list": ({**TOWER, "vision_cfg": []}, "refused"),
    "a tower of null": ({**TOWER, "vision_cfg": None}, "refused"),
    "an unknown key": ({**TOWER, "hub": "x"}, "refused"),
    "a width of zero": (_vision(width=0), "refused"),
    "a width of 10^9": (_vision(width=10**9), "refused"),
    "a width in words": (_vision(width="wide"), "refused"),
    "layers below zero": (_vision(layers=-1), "refused"),
    "no layers": (_vision(layers=0), "refused"),
    "a layer too many": (_vision(layers=2), "refused"),
    "10^8 layers": (_vision(layers=10**8), "refused"),
    "layers of a fraction": (_vision(layers=1.5), "refused"),
    "layers that are a mapping": (_vision(layers={}), "refused"),
    "pictures of no size": (_vision(image_size=0), "refused"),
    "pictures below size": (_vision(image_size=-8), "refused"),
    "pictures of 10^7": (_vision(image_size=10**7), "refused"),
    "pictures in words": (_vision(image_size="large"), "refused"),
    "patches of no size": (_vision(patch_size=0), "refused"),
    "patches larger than pictures": (_vision(patch_size=64), "refused"),
    "heads that do not divide": (_vision(head_width=7), "either"),
    "heads of no width": (_vision(head_width=0), "refused"),
    "a tower of timm": (_vision(timm_model_name="x\x1b[2J"), "refused"),
    "an embedding of zero": ({**TOWER, "embed_dim": 0}, "refused"),
    "an embedding of -1": ({**TOWER, "embed_dim": -1}, "refused"),
    "an embedding of 10^12": ({**TOWER, "embed_dim": 10**12}, "refused"),
    "a deviation of zero": (_pixels(std=[0.2, 0, 0.2]), "refused"),
    "a deviation below zero": (_pixels(std=[0.2, -1, 0.2]), "refused"),
    "a deviation not a number": (_pixels(std=[0.2, float("nan"), 0.2]), "refused"),
    "two means": (_pixels(mean=[0.5, 0.5]), "refused"),
    "means in words": (_pixels(mean="half"), "refused"),
    "an unknown interpolation": (_pixels(interpolation="fractal"), "refused"),
    "an unknown way to resize": (_pixels(resize_mode="stretch"), "refused"),
    "preprocessing in a list": ({**TOWER, "preprocess": [1]}, "refused"),
}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


PICTURES: dict[str, tuple[bytes, Expected]] = {
    "empty": (b"", "refused"),
    "noise": (Random(3).randbytes(300), "refused"),
    "a PNG's first bytes": (b"\x89PNG\r\n\x1a\n", "refused"),
    "a PNG without rows": (_png(8, 8, b""), "refused"),
    "a PNG of half its rows": (_png(8, 8, bytes(25 * 4)), "either"),  # Pillow leaves the rest black
    "a PNG of no width": (_png(0, 8, bytes(8)), "refused"),
    "a PNG of 60,000 times 60,000": (_png(60_000, 60_000, bytes(100)), "refused"),
    "a PNG of 2^31 times 2^31": (_png(2**31 - 1, 2**31 - 1, bytes(100)), "refused"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(code-ran) (w) file closefile\n%%EOF\n", "refused"),
    "a PDF": (b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n", "refused"),
    "a vector picture": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>x</script></svg>', "refused"),
    "a page": (b"<html>404</html>", "refused"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "refused"),
    "a FITS file": (b"SIMPLE  =                    T" + b" " * 2850, "refused"),
    "a WMF file": (b"\xd7\xcd\xc6\x9a" + bytes(80), "refused"),
    "a GIF of no size": (b"GIF89a\0\0\0\0\0\0\0;", "refused"),
    "a BMP of 2^31 rows": (
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 8, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
        "refused",
    ),
    "a PPM that ends early": (b"P6 8 8 255\n" + bytes(50), "refused"),
    "a PPM of letters": (b"P6 eight 8 255\n" + bytes(192), "refused"),
    "a JPEG's first bytes": (b"\xff\xd8\xff\xe0" + bytes(20), "refused"),
    "a TIFF whose directory is itself": (b"II*\0\x08\0\0\0\x01\0\0\x01\x03\0\x01\0\0\0\x08\0\0\0\x08\0\0\0", "refused"),
}
HEADS: dict[str, tuple[Any, Expected]] = {
    "of three classes": (torch.eye(3, 8), "refused"),
    "of another width": (torch.eye(2, 9), "refused"),
    "that is a vector": (torch.ones(8), "refused"),
    "that is a cube": (torch.ones(2, 8, 1), "refused"),
    "that is empty": (torch.ones(0, 8), "refused"),
    "of whole numbers": (torch.ones(2, 8, dtype=torch.int64), "refused"),
    "that is not a number": (torch.full((2, 8), torch.nan), "refused"),
    "that is infinite": (torch.full((2, 8), torch.inf), "refused"),
    "of zeros": (torch.zeros(2, 8), "either"),
    "with a bias": ({"weight": HEAD, "bias": torch.ones(2)}, "refused"),
    "of two matrices": ({"a": HEAD, "b": HEAD}, "refused"),
    "that is a text": ("head", "refused"),
    "that is nothing": ({}, "refused"),
}


def _encoder(name: str, config: Any, expected: Expected) -> Case:
    text = config if isinstance(config, bytes) else json.dumps(config)
    return Case(f"an encoder: {name}", expected, lambda folder: evaluated(folder, lambda place: raw(place / "tower.json", text)))


def _shown(name: str, content: bytes, expected: Expected) -> Case:
    def spoil(folder: Path) -> object:
        return raw(folder / "data" / "pets" / "test" / "cat" / "0.png", content)

    return Case(f"a picture: {name}", expected, lambda folder: evaluated(folder, spoil))


def _head(name: str, content: Any, expected: Expected) -> Case:
    def spoil(folder: Path) -> object:
        return torch.save(content, folder / "heads" / "pets_head.pt")

    return Case(f"a head {name}", expected, lambda folder: evaluated(folder, spoil))


def _renamed(old: str, new: str) -> Spoil:
    return lambda folder: (folder / old).rename(folder / new)


def _data(name: str, spoil: Spoil, *more: str, expected: Expected = "refused") -> Case:
    return Case(f"a data set {name}", expected, lambda folder: evaluated(folder, spoil, *more))


def _nothing(folder: Path) -> None:
    """Nothing is spoiled but an option."""


CASES = [
    Case("a set of pictures in which all is well", "read", lambda folder: evaluated(folder, _nothing)),
    *(_encoder(name, *found) for name, found in ENCODERS.items()),
    *(_shown(name, *found) for name, found in PICTURES.items()),
    *(_head(name, *found) for name, found in HEADS.items()),
    _data("that is not there", _renamed("data/pets", "data/other")),
    _data("without a test split", _renamed("data/pets/test", "data/pets/later"), expected="either"),
    _data("with a class too many", _renamed("data/pets/test/dog", "data/pets/test/fox")),
    _data("that is a file", lambda folder: (_renamed("data/pets", "gone")(folder), raw(folder / "data" / "pets", b"x"))),
    _data("whose pictures are texts", _renamed("data/pets/test/cat/0.png", "data/pets/test/cat/0.txt"), expected="either"),
    _data("above", _nothing, "--dataset=pets=../../../etc"),
    _data("of nobody's task", _nothing, "--dataset=cars=pets"),
    _data("with a NUL", _nothing, "--dataset=pets=a\0b"),
    _data("whose picture is a loop", lambda folder: (folder / "data/pets/test/cat/9.png").symlink_to("9.png"), expected="either"),
    _data(
        "whose picture is a device",
        lambda folder: (folder / "data/pets/test/cat/9.png").symlink_to("/dev/zero"),
        expected="either",
    ),
    _data("whose picture is a folder", lambda folder: (folder / "data/pets/test/cat/9.png").mkdir(), expected="either"),
]
