"""Runs in a folder that another person can open: everything that the store knows of them, and a table to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dcmerge.checkpoints.folders import new_folder
from dcmerge.checkpoints.paths import checked_path, reason, shown
from dcmerge.errors import InputError
from dcmerge.runs.fields import from_data, to_data
from dcmerge.runs.run import Run
from dcmerge.runs.store import RunStore
from dcmerge.runs.tables import as_csv, table

RUNS, TABLE, README = "runs.jsonl", "runs.csv", "README.md"
#: Bytes of one run's line, and of the whole file: a run of twenty tasks with all their images takes some 20 kB.
_LONGEST_LINE, _LARGEST = 4 << 20, 1 << 30
_ABOUT = """# {count} runs of merged models

`runs.csv` is a table to look at. `runs.jsonl` holds the same runs whole, one a line: the recipe, which images were right, the
notes. To have them in your own store, and to compare them there with your own:

```sh
python -m dcmerge runs import {folder}
```
"""


def files_of(runs: Sequence[Run], folder: str) -> dict[str, str]:
    """The texts of the folder's files by name. Of the inputs of a recipe only the names of the files, not where they lie."""
    lines = [json.dumps(_without_places(to_data(run)), allow_nan=False) for run in runs]
    about = _ABOUT.format(count=len(runs), folder=folder)
    return {
        RUNS: "".join(f"{line}\n" for line in lines),
        TABLE: as_csv(table([from_data(json.loads(line)) for line in lines])),
        README: about,
    }


def write_folder(runs: Sequence[Run], path: str | Path) -> Path:
    """Write the folder, all of it or nothing; raises InputError where something is there already."""
    target = Path(path)
    with new_folder(target) as folder:
        for name, text in files_of(runs, target.name).items():
            (folder / name).write_text(text, encoding="utf-8")
    return target


def read_folder(path: str | Path) -> list[Run]:
    """The runs of such a folder, or of its ``runs.jsonl``; raises InputError that names the line where something is no run."""
    found = checked_path(path)
    file = found / RUNS if found.is_dir() else found
    try:
        if not file.is_file():
            raise InputError(f"Expected a folder that runs export wrote, with {RUNS} in it, got {shown(found)}.")
        if file.stat().st_size > _LARGEST:
            raise InputError(f"Expected at most {_LARGEST} bytes of runs, got {file.stat().st_size} in {shown(file)}.")
        with open(file, "rb") as opened:
            return list(parsed_runs(iter(lambda: opened.readline(_LONGEST_LINE + 1), b""), shown(file)))
    except OSError as error:
        raise InputError(f"Cannot read {shown(file)}: {reason(error)}.") from None


def parsed_runs(lines: Iterator[bytes], where: str) -> Iterator[Run]:
    """A run a line; empty lines are passed over."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            if len(line) > _LONGEST_LINE:
                raise InputError(f"expected a run of at most {_LONGEST_LINE} bytes")
            yield from_data(json.loads(line))
        except (InputError, ValueError, RecursionError) as error:
            text = str(error) if isinstance(error, InputError) else "expected JSON, got something else"
            raise InputError(f"{where}, line {number}: {text}") from None


def import_runs(runs: Sequence[Run], store: RunStore) -> int:
    """Record the runs, with their ids, names and notes; how many of them are new. All of them or none."""
    before = store.count()
    store.record_all(runs)
    return store.count() - before


def _without_places(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data without the paths of its owner's machine: of a file or folder only its name."""
    evaluation = {**data["evaluation"], "model": _name(data["evaluation"]["model"])}
    plain = {**data, "evaluation": evaluation, "variant": _name(data["variant"])}
    plain["set"] = {**data["set"], "name": _name(data["set"]["name"])}
    recipe = data["recipe"]
    if isinstance(recipe, Mapping) and isinstance(recipe.get("inputs"), Mapping):
        plain["recipe"] = {**recipe, "inputs": {task: _named(entry) for task, entry in recipe["inputs"].items()}}
    return plain


def _name(text: str) -> str:
    return Path(text).name if Path(text).is_absolute() else text


def _named(entry: Any) -> Any:
    return {**entry, "file": Path(str(entry["file"])).name} if isinstance(entry, Mapping) and "file" in entry else entry
