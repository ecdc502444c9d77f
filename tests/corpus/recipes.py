"""Recipes, and configurations of mergekit: YAML and JSON of any kind, values of any kind, files of anybody's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.corpus.making import Case, Expected, model, raw

INPUTS = "inputs: {base: {file: base.safetensors}, one: {file: one.safetensors}, two: {file: two.safetensors}}\n"
SOUND = "method: ties\nparameters: {density: 0.4}\nscale: 0.5\n" + INPUTS
MERGEKIT = "merge_method: ties\nbase_model: base.safetensors\nmodels:\n  - model: one.safetensors\n  - model: two.safetensors\n"
#: YAML that stands for no number between 0 and 1.
VALUES = {
    "an empty whole number": '!!int ""',
    "a whole number of letters": "!!int seven",
    "an empty number": '!!float ""',
    "a number of letters": "!!float x",
    "a truth that is none": "!!bool perhaps",
    "a moment that is none": "!!timestamp soon",
    "a day that is none": "2026-02-31",
    "a day": "2026-02-03",
    "a moment": "2026-02-03 04:05:06",
    "bytes": "!!binary AAECAw==",
    "bytes that are none": "!!binary ***",
    "a set": "!!set {a, b}",
    "an ordered mapping": "!!omap [a: 1]",
    "pairs": "!!pairs [a: 1, a: 2]",
    "a hexadecimal number of 5,000 digits": "0x" + "a" * 5_000,
    "a binary number of 50,000 digits": "0b" + "10" * 25_000,
    "an octal number of 5,000 digits": "0" + "7" * 5_000,
    "a number of 5,000 digits": "8" * 5_000,
    "a number of base sixty": "1" + ":59" * 2_500,
    "a fraction of base sixty": "1" + ":59" * 2_500 + ".5",
    "not a number": ".nan",
    "infinity": ".inf",
    "below infinity": "-.Inf",
    "1e999": "1e+999",
    "a list": "[0.5]",
    "a mapping": "{a: 0.5}",
    "a word": "half",
    "a number in quotes": '"0.5"',
    "truth": "on",
    "a million": "1000000",
    "minus two thousand": "-2000",
    "a Python object": "!!python/object/apply:os.system [touch code-ran]",
    "a Python name": "!!python/name:os.system",
    "a Python module": "!!python/module:antigravity",
    "an unknown tag": "!vault abc",
}
DENSITIES = (
    "an empty number",
    "a day",
    "bytes",
    "a set",
    "a number of base sixty",
    "not a number",
    "a list",
    "truth",
    "an unknown tag",
)
TEXTS: dict[str, tuple[str | bytes, Expected]] = {
    "nothing": ("", "refused"),
    "a comment": ("# nothing\n", "refused"),
    "a word": ("ties", "refused"),
    "a list": ("- ties\n- dare\n", "refused"),
    "two documents": (SOUND + "---\n" + SOUND, "refused"),
    "a key twice": (SOUND + "method: dare\n", "refused"),
    "a key that is a number": (SOUND + "7: x\n", "refused"),
    "a key that is a list": (SOUND + "[a, b]: x\n", "refused"),
    "a key that is a mapping": (SOUND + "{a: b}: x\n", "refused"),
    "a key that is null": (SOUND + "~: x\n", "refused"),
    "an unknown key": (SOUND + "speed: 9\n", "either"),
    "a merge of keys": ("a: &a {scale: 0.5}\n<<: *a\n" + SOUND, "refused"),
    "an anchor in itself": ("a: &a [*a]\n" + SOUND, "refused"),
    "an alias of nothing": ("a: *b\n" + SOUND, "refused"),
    "aliases that multiply": (
        "a: &a [x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 8)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))
        + SOUND,
        "refused",
    ),
    "deep lists": ("[" * 20_000, "refused"),
    "deep mappings": ("{a: " * 3_000, "refused"),
    "deep blocks": ("".join(" " * n + "a:\n" for n in range(1_500)), "refused"),
    "a tab": ("method:\n\tties\n", "refused"),
    "a NUL": ("method: ti\0es\n" + INPUTS, "refused"),
    "UTF-16": (SOUND.encode("utf-16"), "either"),
    "noise": (Random(5).randbytes(2_000), "refused"),
    "three megabytes": ("#" + "x" * (3 << 20), "refused"),
    "many keys": ("".join(f"k{n}: 1\n" for n in range(4_000)) + SOUND, "either"),
    "a directive": ("%YAML 9.9\n---\n" + SOUND, "refused"),
    "a page": ("<html><body>404</body></html>", "refused"),
    "a control character": ('method: "ti\\x1b[2Jes"\n' + INPUTS, "refused"),
    "an escape of half a character": ('method: "\\ud800"\n' + INPUTS, "refused"),
    "no method": (INPUTS, "refused"),
    "the method null": ("method:\n" + INPUTS, "refused"),
    "the method a list": ("method: [ties]\n" + INPUTS, "refused"),
    "the method a path": ("method: ../ties\n" + INPUTS, "refused"),
    "no inputs": ("method: ties\n", "refused"),
    "inputs null": ("method: ties\ninputs:\n", "refused"),
    "inputs in a list": ("method: ties\ninputs: [one, two]\n", "refused"),
    "inputs that are texts": ("method: ties\ninputs: {base: base.safetensors, one: one.safetensors}\n", "refused"),
    "a base alone": ("method: ties\ninputs: {base: {file: base.safetensors}}\n", "refused"),
    "parameters in a list": ("method: ties\nparameters: [density]\n" + INPUTS, "refused"),
    "an unknown parameter": ("method: ties\nparameters: {speed: 3}\n" + INPUTS, "refused"),
    "parameters in a text": ("method: ties\nparameters: density\n" + INPUTS, "refused"),
    "a zoo above": ("method: ties\nzoo: ../demo\n", "refused"),
    "a zoo that is a number": ("method: ties\nzoo: 5\n", "refused"),
    "a zoo and files": (SOUND + "zoo: demo\n", "refused"),
}
FILES: dict[str, tuple[Any, Expected]] = {
    "absent": ({"file": "three.safetensors"}, "refused"),
    "above": ({"file": "../../../../../../etc/passwd"}, "refused"),
    "a device": ({"file": "/dev/zero"}, "refused"),
    "the terminal": ({"file": "/dev/stdin"}, "refused"),
    "a number": ({"file": 5}, "refused"),
    "null": ({"file": None}, "refused"),
    "empty": ({"file": ""}, "refused"),
    "a NUL": ({"file": "one\0.safetensors"}, "refused"),
    "a list": ({"file": ["one.safetensors"]}, "refused"),
    "an address": ({"file": "https://example.org/one.safetensors"}, "refused"),
    "long": ({"file": "x" * 3_000}, "refused"),
    "control characters": ({"file": "\x1b[2J.safetensors"}, "refused"),
    "without a file": ({"sha256": "0" * 64}, "refused"),
    "of another hash": ({"file": "one.safetensors", "sha256": "1" * 64}, "refused"),
    "of a short hash": ({"file": "one.safetensors", "sha256": "abc"}, "refused"),
    "of a hash that is a number": ({"file": "one.safetensors", "sha256": 12}, "refused"),
    "of a hash in a list": ({"file": "one.safetensors", "sha256": ["0" * 64]}, "refused"),
    "the recipe itself": ({"file": "r.json"}, "refused"),
}
#: Lines behind a sound recipe.
LINES: dict[str, tuple[str, Expected]] = {
    "task: nobody": ("task: nobody", "refused"),
    "content: pickle": ("content: pickle", "refused"),
    "content: [model]": ("content: [model]", "refused"),
    "content: adapter": ("content: adapter", "either"),
    "adapter_rank: 10^20": ("content: adapter\nadapter_rank: 100000000000000000000", "either"),
    "adapter_rank: -1": ("content: adapter\nadapter_rank: -1", "refused"),
    "arithmetic: float8": ("arithmetic: float8", "refused"),
    "arithmetic: 64": ("arithmetic: 64", "refused"),
    "dtype: quad": ("dtype: quad", "refused"),
    "dtype: null": ("dtype:", "either"),
    "qkv: maybe": ("qkv: maybe", "refused"),
    "qkv: [split]": ("qkv: [split]", "refused"),
    "tolerance: -1": ("tolerance: -1", "refused"),
    "tolerance: x": ("tolerance: x", "refused"),
    "versions: 5": ("versions: 5", "refused"),
    "versions: {torch: []}": ("versions: {torch: []}", "refused"),
    "scale_origin: []": ("scale_origin: []", "refused"),
    "plugins: 5": ("plugins: 5", "refused"),
    "plugins: [x.py]": ("plugins: [x.py]", "either"),
    "weights: {nobody: 3}": ("weights: {nobody: 3}", "either"),
}
MERGEKITS: dict[str, tuple[str, Expected]] = {
    "a method that is none": (MERGEKIT.replace("ties", "blend"), "refused"),
    "a method in a list": (MERGEKIT.replace("ties", "[ties]"), "refused"),
    "a method that is null": (MERGEKIT.replace("ties", "", 1), "refused"),
    "no models": ("merge_method: ties\nbase_model: base.safetensors\n", "refused"),
    "models null": ("merge_method: ties\nbase_model: base.safetensors\nmodels:\n", "refused"),
    "models in a mapping": ("merge_method: ties\nmodels: {one: two}\n", "refused"),
    "models that are texts": ("merge_method: ties\nbase_model: base.safetensors\nmodels: [one.safetensors]\n", "refused"),
    "a model that is a number": ("merge_method: ties\nbase_model: base.safetensors\nmodels: [{model: 5}]\n", "refused"),
    "a model without a name": (
        "merge_method: ties\nbase_model: base.safetensors\nmodels: [{parameters: {weight: 1}}]\n",
        "refused",
    ),
    "a model of the hub": (MERGEKIT.replace("one.safetensors", "mistralai/Mistral-7B-v0.1"), "refused"),
    "a model above": (MERGEKIT.replace("one.safetensors", "../../../../etc/passwd"), "refused"),
    "a base that is a list": (MERGEKIT.replace("base.safetensors", "[base.safetensors]"), "refused"),
    "a base that is absent": (MERGEKIT.replace("base.safetensors", "none.safetensors"), "refused"),
    "slices": ("merge_method: linear\nslices:\n  - sources: [{model: one.safetensors, layer_range: [0, 9]}]\n", "refused"),
    "a weight of nan": (MERGEKIT + "    parameters: {weight: .nan}\n", "refused"),
    "a weight of 1e999": (MERGEKIT + "    parameters: {weight: 1e+999}\n", "refused"),
    "a weight of texts": (MERGEKIT + "    parameters: {weight: [a, b]}\n", "refused"),
    "a weight of an empty list": (MERGEKIT + "    parameters: {weight: []}\n", "refused"),
    "weights by an unknown filter": (MERGEKIT + "    parameters: {weight: [{filer: mlp, value: 1}]}\n", "refused"),
    "a weight that is a mapping": (MERGEKIT + "    parameters: {weight: {a: 1}}\n", "refused"),
    "a density of 5": (MERGEKIT + "parameters: {density: 5}\n", "refused"),
    "a density that is a text": (MERGEKIT + "parameters: {density: half}\n", "refused"),
    "lambda in a list": (MERGEKIT + "parameters: {lambda: [0.1, 0.9]}\n", "either"),
    "lambda of 5,000 digits": (MERGEKIT + f"parameters: {{lambda: {'7' * 5_000}}}\n", "refused"),
    "lambda of a hexadecimal monster": (MERGEKIT + f"parameters: {{lambda: 0x{'f' * 5_000}}}\n", "refused"),
    "a dtype that is none": (MERGEKIT + "dtype: float12\n", "refused"),
    "a dtype that is a number": (MERGEKIT + "dtype: 32\n", "refused"),
    "an unknown key": (MERGEKIT + "colour: red\n", "either"),
    "parameters in a list": (MERGEKIT + "parameters: [density]\n", "refused"),
    "a tokenizer of all": (MERGEKIT + "tokenizer_source: union\n", "either"),
    "a chat template": (MERGEKIT + "chat_template: '{{ 7 * 7 }}'\n", "either"),
    "a deep model": ("merge_method: ties\nmodels: [{model: " + "{model: " * 500 + "x" + "}" * 500 + "}]\n", "refused"),
    "weights that sum to nothing": (
        "merge_method: linear\nmodels:\n  - {model: one.safetensors, parameters: {weight: 1}}\n"
        "  - {model: two.safetensors, parameters: {weight: -1}}\n",
        "either",
    ),
    "both kinds at once": (MERGEKIT + SOUND, "refused"),
}


def _run(folder: Path, recipe: Path, *more: str) -> list[str]:
    for seed, name in enumerate(("base", "one", "two")):
        model(folder / f"{name}.safetensors", seed)
    return ["run", str(recipe), f"--out={folder / 'out.safetensors'}", *more]


def _text(name: str, text: str | bytes, expected: Expected, file: str = "r.yaml") -> Case:
    return Case(name, expected, lambda folder: _run(folder, raw(folder / file, text)))


def _density(name: str, value: str) -> Case:
    return _text(f"a density that is {name}", f"method: ties\nparameters:\n  density: {value}\n{INPUTS}", "refused")


def _file(name: str, given: Any, expected: Expected) -> Case:
    document = {
        "method": "average",
        "inputs": {"base": {"file": "base.safetensors"}, "one": given, "two": {"file": "two.safetensors"}},
    }
    return _text(f"a recipe with a file that is {name}", json.dumps(document), expected, "r.json")


def _shown(name: str, text: str | bytes) -> Case:
    return Case(f"recipe of {name}", "either", lambda folder: ["recipe", str(raw(folder / "r.yaml", text)), "--mergekit"])


def _odd(name: str, put: Callable[[Path], object], *more: str) -> Case:
    def make(folder: Path) -> list[str]:
        put(folder / "r.yaml")
        return _run(folder, folder / "r.yaml", *more)

    return Case(name, "refused", make)


def _within(name: str, recipe: str) -> Case:
    def make(folder: Path) -> list[str]:
        return _run(folder, model(folder / "m.safetensors", 5, metadata={"dcmerge.recipe": recipe}))

    return Case(f"a merged file whose recipe is {name}", "refused", make)


JSONS: dict[str, str] = {
    "a key twice": '{"method": "ties", "method": "dare"}',
    "NaN": '{"method": "ties", "scale": NaN, "inputs": {}}',
    "a number of 6,000 digits": f'{{"method": "ties", "scale": {"4" * 6_000}}}',
    "deep": '{"inputs":' * 30_000,
    "half": '{"method": "ties"',
    "a comment": '{"method": "ties"} // fine',
}
EMBEDDED = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "deep": "[" * 30_000,
    "somebody's file": '{"method": "average", "inputs": {"one": {"file": "/etc/passwd"}}}',
}

CASES = [
    *(_text(f"a scale that is {name}", f"method: ties\nscale: {v}\n" + INPUTS, "refused") for name, v in VALUES.items()),
    *(_density(name, VALUES[name]) for name in DENSITIES),
    *(_text(f"a recipe of {name}", *found) for name, found in TEXTS.items()),
    *(_text(f"a recipe in JSON: {name}", text, "refused", "r.json") for name, text in JSONS.items()),
    *(_text(f"a recipe with {name}", f"{SOUND}{line}\n", expected) for name, (line, expected) in LINES.items()),
    *(_file(name, *found) for name, found in FILES.items()),
    *(_text(f"mergekit: {name}", *found) for name, found in MERGEKITS.items()),
    *(
        _shown(name, TEXTS[name][0])
        for name in ("a control character", "noise", "aliases that multiply", "inputs that are texts")
    ),
    *(_within(name, recipe) for name, recipe in EMBEDDED.items()),
    _odd("a recipe that is a pipe", os.mkfifo),
    _odd("a recipe that is a folder", Path.mkdir),
    _odd("a recipe that is a loop", lambda path: path.symlink_to(path.name)),
    _odd("a recipe that is not there", lambda path: None),
    _odd("a recipe whose files are searched nowhere", lambda path: raw(path, SOUND.replace("two.s", "2.s")), "--search=nowhere"),
    _odd("a recipe with a file for nobody", lambda path: raw(path, SOUND), "--input=nobody=one.safetensors"),
    _odd("a recipe with a plugin that is not there", lambda path: raw(path, SOUND), "--plugin=nothing.py"),
    Case("a model without a recipe", "refused", lambda folder: _run(folder, model(folder / "m.safetensors", 5))),
]
