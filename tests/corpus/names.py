"""Names of tensors, tasks and files that move the cursor, look like code, or run far longer than a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tests.corpus.making import Case, entry, merged, merging, model, tensors, with_header

NAMES = {
    "a way up": "../../../tmp/w",
    "an absolute path": "/root/.ssh/id",
    "a script": "<script>alert(1)</script>",
    "a link": "[here](javascript:alert(1))",
    "Markdown": "# **a** | b | `c` $\\frac{1}{2}$",
    "a second error": "layer\nerror: all is lost",
    "a carriage return": "layer\rweights",
    "a clear screen": "\x1b[2J\x1b[Hlayer",
    "a title": "\x1b]0;owned\x07layer",
    "a bell": "layer\x07\x08\x08",
    "a C1 control": "layer\x9b31m",
    "right to left": "layer\u202esthgiew",
    "isolates": "\u2066layer\u2069",
    "no width": "la\u200byer",
    "a line separator": "layer\u2028weights",
    "a NUL": "layer\0weight",
    "nothing": "",
    "spaces": "      ",
    "dots": "..",
    "long": "layer." * 2_000 + "weight",
    "emoji": "👩‍🚀.weight",
    "a formula": "=HYPERLINK(1)",
    "a format": "{0.__class__} %s %n",
    "the metadata": "__metadata__",
    "the wrapper alone": "module.",
}
#: Those with something that a terminal would act on.
TOLD = (
    "a second error",
    "a clear screen",
    "a title",
    "a C1 control",
    "right to left",
    "isolates",
    "a line separator",
    "a NUL",
    "long",
)
PICKLED = ("a second error", "a clear screen", "a NUL", "nothing", "the metadata", "dots", "long")
TASKS = (
    "a way up",
    "an absolute path",
    "a script",
    "a second error",
    "a clear screen",
    "right to left",
    "nothing",
    "dots",
    "long",
    "a formula",
)


def _file(path: Path, name: str, seed: int) -> Path:
    numbers = torch.randn(12, generator=torch.Generator().manual_seed(seed)).numpy().tobytes()
    return with_header(path, {name: entry([4, 3], 0, 48)}, numbers)


def _set(folder: Path, name: str) -> list[Path]:
    return [_file(folder / f"{one}.safetensors", name, seed) for seed, one in enumerate(("base", "one", "two"))]


def _merged(name: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        base, *experts = _set(folder, name)
        return merged(folder, base, experts)

    return make


def _lacking(name: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        return merged(folder, _set(folder, name)[0], [model(folder / "other.safetensors", 1)])

    return make


def _listed(command: str, name: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        base, *experts = _set(folder, name)
        return [command, f"--base={base}", *(f"--expert={path.stem}={path}" for path in experts)]

    return make


def _pickled(name: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        for seed, one in enumerate(("base", "one", "two")):
            torch.save({name: tensors(seed)["layer.weight"], "w": torch.ones(2)}, folder / f"{one}.pt")
        return merged(folder, folder / "base.pt", [folder / "one.pt", folder / "two.pt"])

    return make


def _task(task: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        base, one = model(folder / "base.safetensors", 0), model(folder / "one.safetensors", 1)
        return ["merge", f"--base={base}", f"--expert={task}={one}", "--method=average", f"--out={folder / 'out.safetensors'}"]

    return make


def _on_disk(name: str) -> Callable[[Path], list[str]]:
    """A file of that name in a folder that is searched, and one that is broken."""

    def make(folder: Path) -> list[str]:
        model(folder / "base.safetensors", 0)
        model(folder / f"{name}.safetensors", 1)
        (folder / f"{name}.pt").write_bytes(b"rubbish")
        return ["inspect", str(folder)]

    return make


ON_DISK = {
    "control characters": "exp\x1b[31mert\x07",
    "a newline": "exp\nert",
    "right to left": "exp\u202etre",
    "bytes of Latin-1": "exp\udce9rt",
    "a script": "<b>exp<b>",
    "a quote": "exp\"ert'",
    "a dash": "--force",
}


def _missing(path: str) -> Case:
    return Case(f"a path with {path!r:.40}", "refused", lambda folder: merging(folder, folder / path))


CASES = [
    *(Case(f"tensors called {what}", "either", _merged(name)) for what, name in NAMES.items()),
    *(Case(f"tensors in a .pt called {what}", "either", _pickled(NAMES[what])) for what in PICKLED),
    Case("tensors in a .pt called half a character", "either", _pickled("layer\ud83d")),
    *(Case(f"tensors called {what} that an expert lacks", "refused", _lacking(NAMES[what])) for what in TOLD),
    *(Case(f"spectra of tensors called {what}", "either", _listed("spectra", NAMES[what])) for what in TOLD),
    *(Case(f"a task called {what}", "either", _task(NAMES[what])) for what in TASKS),
    *(Case(f"files with {what} in their names", "either", _on_disk(name)) for what, name in ON_DISK.items()),
    *map(
        _missing,
        ("x\x1b[31m.safetensors", "x\ny.safetensors", "x\0y.safetensors", "x" * 300 + ".safetensors", "\u202ex.safetensors"),
    ),
]
