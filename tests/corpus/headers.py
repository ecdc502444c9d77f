"""Headers of safetensors files that lie about what follows them, or are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.corpus.making import Case, Expected, entry, merged, merging, model, raw, with_header

WEIGHT, BIAS = entry([6, 4], 0, 96), entry([6], 96, 120)
SOUND = {"layer.weight": WEIGHT, "layer.bias": BIAS}
NUMBERS = bytes(120)
#: Headers in which only the matrix is wrong: its shape, its place, its dtype.
WEIGHTS: dict[str, Any] = {
    "no shape": {"dtype": "F32", "data_offsets": [0, 96]},
    "no offsets": {"dtype": "F32", "shape": [6, 4]},
    "no dtype": {"shape": [6, 4], "data_offsets": [0, 96]},
    "a shape that is a text": entry("6x4", 0, 96),
    "a shape that is null": entry(None, 0, 96),
    "a size that is a text": entry(["6", 4], 0, 96),
    "a size that is a fraction": entry([6.5, 4], 0, 96),
    "a size that is true": entry([True, 24], 0, 96),
    "a negative size": entry([-6, -4], 0, 96),
    "a size of 2^64": entry([2**64, 4], 0, 96),
    "sizes whose product wraps": entry([2**32, 2**32], 0, 96),
    "a nested shape": entry([[6, 4]], 0, 96),
    "another size than its place": entry([6, 5], 0, 96),
    "offsets backwards": entry([6, 4], 96, 0),
    "one offset": {"dtype": "F32", "shape": [6, 4], "data_offsets": [0]},
    "three offsets": {"dtype": "F32", "shape": [6, 4], "data_offsets": [0, 96, 120]},
    "negative offsets": entry([6, 4], -96, 0),
    "offsets that are texts": entry([6, 4], "0", "96"),
    "offsets that are fractions": entry([6, 4], 0.0, 96.5),
    "an offset of 2^63": entry([6, 4], 2**63, 2**63 + 96),
    "an offset of 10^30": entry([6, 4], 10**30, 10**30 + 96),
    "an offset behind the end": entry([6, 4], 40, 136),
    "the bias's place": entry([6], 96, 120),
    "an entry that is null": None,
    "an entry that is a number": 5,
    **{
        f"the dtype {dtype!r}": entry([6, 4], 0, 96, dtype)
        for dtype in ("f32", "F33", "", "float32", None, 32, ["F32"], "F4", "F6_E2M3", "Q8_0", "\x1b[31mF32", "F32\n")
    },
}
#: Whole headers, and what follows them.
WHOLE: dict[str, tuple[Any, bytes, Expected]] = {
    "a list": ([], b"", "refused"),
    "a text": (b'"layer"', b"", "refused"),
    "a number": (b"17", b"", "refused"),
    "null": (b"null", b"", "refused"),
    "no tensors": ({}, b"", "refused"),
    "metadata alone": ({"__metadata__": {"format": "pt"}}, b"", "refused"),
    "not JSON": (b"{layer.weight: F32}", NUMBERS, "refused"),
    "JSON that ends early": (json.dumps(SOUND).encode()[:-9], NUMBERS, "refused"),
    "more behind the JSON": (json.dumps(SOUND).encode() + b" {}", NUMBERS, "refused"),
    "bytes that are no UTF-8": (b'{"\xc3\x28":' + json.dumps(WEIGHT).encode() + b"}", bytes(96), "refused"),
    "UTF-16": (json.dumps(SOUND).encode("utf-16"), NUMBERS, "refused"),
    "a deep list": (b"[" * 60_000, b"", "refused"),
    "a deep mapping": (b'{"a":' * 60_000, b"", "refused"),
    "NaN": (b'{"layer.weight": NaN}', NUMBERS, "refused"),
    "a long number": (b'{"layer.weight": ' + b"9" * 9_000 + b"}", NUMBERS, "refused"),
    "metadata that is a list": ({"__metadata__": ["pt"], **SOUND}, NUMBERS, "refused"),
    "metadata that holds numbers": ({"__metadata__": {"step": 12}, **SOUND}, NUMBERS, "refused"),
    "metadata that nests": ({"__metadata__": {"a": {"b": "c"}}, **SOUND}, NUMBERS, "refused"),
    "metadata with the recipe of nobody": ({"__metadata__": {"dcmerge.recipe": "["}, **SOUND}, NUMBERS, "either"),
    "a gap between tensors": ({"layer.weight": WEIGHT, "layer.bias": entry([6], 100, 124)}, bytes(124), "refused"),
    "tensors that overlap": ({"layer.weight": WEIGHT, "layer.bias": entry([6], 90, 114)}, bytes(114), "refused"),
    "too few numbers": (SOUND, bytes(60), "refused"),
    "too many numbers": (SOUND, bytes(160), "refused"),
    "spaces around": (b"   " + json.dumps(SOUND).encode() + b"   ", NUMBERS, "either"),
    "a name twice": (
        b'{"layer.weight":' + json.dumps(WEIGHT).encode() + b',"layer.weight":' + json.dumps(WEIGHT).encode() + b"}",
        bytes(96),
        "either",
    ),
    "an entry that is a list": ({"layer.weight": ["F32", [6, 4], [0, 96]], "layer.bias": BIAS}, NUMBERS, "either"),
    "half a pair of characters": (b'{"\\udc00":' + json.dumps(WEIGHT).encode() + b"}", bytes(96), "refused"),
}
#: Shapes that a base and its experts share: hard on whoever makes tensors of them.
SHARED: dict[str, list[int]] = {
    "eighty dimensions": [1] * 80,
    "seventy dimensions of zero": [0] * 70,
    "an empty matrix": [0, 4],
    "an empty matrix of 2^61 columns": [0, 2**61],
    "an empty cube of huge sides": [0, 2**50, 2**50],
    "one number": [],
    "one row": [1, 1],
}
LENGTHS = (0, 1, 3, 10**6, 2**31, 2**62, 2**64 - 8)


def _weight(found: Any) -> Case:
    name, weight = found
    header = {"layer.weight": weight, "layer.bias": BIAS}
    return Case(
        f"a header with {name}", "refused", lambda folder: merging(folder, with_header(folder / "e.safetensors", header, NUMBERS))
    )


def _whole(name: str, header: Any, numbers: bytes, expected: Expected) -> Case:
    def make(folder: Path) -> list[str]:
        return merging(folder, with_header(folder / "e.safetensors", header, numbers))

    return Case(f"a header: {name}", expected, make)


def _length(length: int) -> Case:
    def make(folder: Path) -> list[str]:
        return merging(folder, with_header(folder / "e.safetensors", SOUND, NUMBERS, length))

    return Case(f"a header that says it has {length} bytes", "refused", make)


def _shared(name: str, shape: list[int]) -> Case:
    def make(folder: Path) -> list[str]:
        count = 0 if 0 in shape else 1
        header = {"w": entry(shape, 0, 4 * count)}
        files = [with_header(folder / f"{one}.safetensors", header, bytes(4 * count)) for one in ("base", "one", "two")]
        return merged(folder, files[0], files[1:], method="dc_merge")

    return Case(f"models of {name}", "either", make)


def _index(name: str, index: Any) -> Case:
    def make(folder: Path) -> list[str]:
        text = index if isinstance(index, bytes) else json.dumps(index).encode()
        model(folder / "shards" / "model-1.safetensors", 1)
        path = raw(folder / "shards" / "model.safetensors.index.json", text)
        return merging(folder, path)

    return Case(f"an index: {name}", "refused", make)


INDEXES: dict[str, Any] = {
    "no JSON": b"{",
    "a list": [],
    "without weights": {"metadata": {}},
    "weights in a list": {"weight_map": ["model-1.safetensors"]},
    "no weights": {"weight_map": {}},
    "a shard that is a number": {"weight_map": {"layer.weight": 1, "layer.bias": 1}},
    "a shard that is absent": {"weight_map": {"layer.weight": "model-2.safetensors"}},
    "a shard above": {"weight_map": {"layer.weight": "../base.safetensors"}},
    "a shard elsewhere": {"weight_map": {"layer.weight": "/etc/passwd"}},
    "a shard that is itself": {"weight_map": {"layer.weight": "model.safetensors.index.json"}},
    "a weight that its shard lacks": {"weight_map": {"layer.weight": "model-1.safetensors", "layer.gain": "model-1.safetensors"}},
    "a NUL in a shard's name": {"weight_map": {"layer.weight": "model\0.safetensors"}},
    "half a character in a shard's name": {"weight_map": {"layer.weight": "\ud83d.safetensors"}},
    "a long shard's name": {"weight_map": {"layer.weight": "m" * 5_000 + ".safetensors"}},
}

CASES = [
    *map(_weight, WEIGHTS.items()),
    *(_whole(name, *found) for name, found in WHOLE.items()),
    *map(_length, LENGTHS),
    *(_shared(name, shape) for name, shape in SHARED.items()),
    *(_index(name, index) for name, index in INDEXES.items()),
]
