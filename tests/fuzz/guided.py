"""Bytes that a fuzzer grows by what they reach in our code: ``python -m tests.fuzz.guided [--runs N] [TARGET ...]``.

Each target reads any bytes, or refuses them in one sentence (InputError); anything else ends the run with the input of it.
atheris does the searching. Where it is not installed this says so and leaves the search out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from dcmerge.runtime.processes import module_command

Read = Callable[[Path], object]
_LONGEST = 2000  # bytes of an input


def main(arguments: list[str] | None = None) -> int:
    """Every target in a process of its own; 1 where one of them found something."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.guided", description="Search for input that is neither read nor refused."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(SEEDS)} (default: all)")
    parser.add_argument("--runs", type=int, default=20_000, help="inputs a target (default 20000)")
    parser.add_argument("--one", action="store_true", help="search in this process")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed here: the search that is guided by coverage is left out")
        return 0
    if options.one:
        _search(options.targets[0], options.runs)
        return 0
    failed = [target for target in options.targets or SEEDS if _started(target, options.runs)]
    print(f"something was found: {', '.join(failed)}" if failed else "nothing was found")
    return int(bool(failed))


def _started(target: str, runs: int) -> int:
    print(f"{target}: {runs} inputs", flush=True)
    command = [*module_command("tests.fuzz.guided", "--one", "--runs", str(runs), target)]
    return subprocess.run(command, check=False).returncode


def _search(target: str, runs: int) -> None:
    import atheris  # pyright: ignore[reportMissingImports] (installed by make fuzz where there is a build of it)

    with atheris.instrument_imports(include=["dcmerge", "yaml"]):
        from dcmerge.errors import InputError

        name, reader = READERS[target]
        read = reader()

    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder, "seeds")
        seeds.mkdir()
        for number, seed in enumerate(SEEDS[target]):
            (seeds / str(number)).write_bytes(seed)

        path = Path(folder, name)

        def one(data: bytes) -> None:
            path.write_bytes(data)
            try:
                read(path)
            except InputError as error:
                assert "\n" not in str(error), error

        options = [f"-runs={runs}", f"-max_len={_LONGEST}", f"-artifact_prefix={tempfile.gettempdir()}/", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, str(seeds)], one)
        atheris.Fuzz()


def _weights() -> Read:
    from dcmerge.checkpoints import open_checkpoint

    def read(path: Path) -> None:
        found = open_checkpoint(path)
        for name in found.infos:
            found.tensor(name)

    return read


def _settings() -> Read:
    from dcmerge.checkpoints.adapter_settings import AdapterSettings

    return lambda path: AdapterSettings.open(path).rank_of("layers.0.q_proj")


def _recipe() -> Read:
    from dcmerge.merging.recipe import Recipe

    return Recipe.open


def _journal() -> Read:
    from dcmerge.jobs.journal import Journal

    return lambda path: [Journal(path).events(kind) for kind in ("state", "progress", "worker", "step")]


_HEADER = json.dumps({"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}}).encode()
#: The name of the file that holds the bytes, and what reads it: imported late, so that atheris sees the code.
READERS: dict[str, tuple[str, Callable[[], Read]]] = {
    "weights": ("a.safetensors", _weights),
    "settings": ("adapter_config.json", _settings),
    "recipe": ("recipe.yaml", _recipe),
    "journal": ("journal.jsonl", _journal),
}
#: Valid inputs to begin with.
SEEDS: dict[str, tuple[bytes, ...]] = {
    "weights": (struct.pack("<Q", len(_HEADER)) + _HEADER + bytes(8),),
    "settings": (b'{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "rank_pattern": {"q_proj": 3}, "target_modules": ["q_proj"]}',),
    "recipe": (
        b"merge_method: ties\nbase_model: b.safetensors\nmodels:\n- model: o.safetensors\n  parameters: {weight: 0.5}\n",
        b'{"inputs": {"base": {"file": "b.safetensors"}, "one": {"file": "o.safetensors"}}, "method": "ties", "scale": 0.5}',
    ),
    "journal": (
        b'{"time": 1.0, "event": "state", "state": "running", "text": ""}\n{"time": 2.0, "event": "progress", "share": 0.5}\n',
    ),
}


if __name__ == "__main__":
    sys.exit(main())
