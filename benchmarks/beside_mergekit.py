"""(k) Beside mergekit: the same configuration, the same files, both as commands, in turn, with time and peak memory.

mergekit lives in an environment of its own (``make mergekit``), as it asks for other versions than we do. Both commands are
timed whole, with their imports; ours flushes what it writes to the disk, which mergekit leaves to the system.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from benchmarks.language_models import SMALL, write_models
from benchmarks.measuring import Ran, Row, ran
from dcmerge.runtime.processes import module_command

EXPERTS = 3
#: Settings of all models and of each, by mergekit's name of the method.
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({}, {"weight": 1.0}),
    "task_arithmetic": ({"lambda": 0.4}, {"weight": 1.0}),
    "ties": ({"lambda": 0.4}, {"weight": 1.0, "density": 0.2}),
    "dare_linear": ({"lambda": 0.4}, {"weight": 1.0, "density": 0.5}),
    "breadcrumbs": ({"lambda": 0.4}, {"weight": 1.0, "density": 0.9, "gamma": 0.01}),
    "model_stock": ({}, {}),
    "slerp": ({"t": 0.5}, {}),
    "karcher": ({}, {}),
}
#: What is drawn at random differs between the two.
_RANDOM = ("dare_linear",)


def beside_mergekit(folder: Path, runs: int, mergekit: Path) -> Iterator[Row]:
    """A row for each method and each state of our cache; one row that says how to install mergekit where it is not there."""
    if not mergekit.exists():
        yield Row("k", "beside mergekit", remark=f"not measured: no {mergekit}; make mergekit installs it")
        return
    base, experts = write_models(folder / "llama-small", SMALL, EXPERTS)
    for name in METHODS:
        yield from _rows(name, base, experts, folder / "beside", runs, mergekit)


def _rows(name: str, base: Path, experts: dict[str, Path], work: Path, runs: int, mergekit: Path) -> Iterator[Row]:
    work.mkdir(parents=True, exist_ok=True)
    recipe, theirs, ours = work / "merge.yml", work / "theirs", work / "ours"
    recipe.write_text(yaml.safe_dump(configuration(name, base, list(experts.values()))))
    merged = [*module_command("dcmerge", "run", str(recipe), "--out", str(ours), "--force")]
    candidates = {
        "theirs": ([str(mergekit), str(recipe), str(theirs)], None),
        "off": (merged, "off"),
        "on": (merged, str(work / "cache")),
    }
    found: dict[str, list[Ran]] = {}
    for _ in range(runs):
        for who, (command, cache) in candidates.items():
            shutil.rmtree(theirs if who == "theirs" else ours, ignore_errors=True)
            found.setdefault(who, []).append(ran(command, cache))
    median = {who: statistics.median(one.seconds for one in measured) for who, measured in found.items()}
    used = {who: statistics.median(one.processor for one in measured) for who, measured in found.items()}
    peak = {who: max(one.peak for one in measured) / 2**30 for who, measured in found.items()}
    error = None if name in _RANDOM else _difference(ours, theirs)
    for who in ("off", "on"):
        said = f"{name} of {EXPERTS} experts of {SMALL.count / 1e9:.2f} billion parameters, bfloat16, cache {who}"
        remark = (
            f"peak {peak['theirs']:.2f} GiB there, {peak[who]:.2f} GiB here; processor time {used['theirs']:.1f} s there, "
            f"{used[who]:.1f} s here"
        )
        yield Row("k", said, median["theirs"], median[who], error, "1.5 x at half the memory", runs, remark)


def configuration(name: str, base: Path, experts: list[Path]) -> dict[str, Any]:
    """mergekit's document for one method; the experts of SLERP are two."""
    shared, own = METHODS[name]
    models = [{"model": str(path.resolve()), **({"parameters": dict(own)} if own else {})} for path in experts]
    if name == "slerp":
        models = models[:2]
    first = {"slerp": models[0]["model"], "linear": None, "karcher": None}.get(name, str(base.resolve()))
    return {
        "merge_method": name,
        "models": models,
        "dtype": "bfloat16",
        **({"base_model": first} if first else {}),
        **({"parameters": shared} if shared else {}),
    }


def _difference(ours: Path, theirs: Path) -> float:
    """‖ours − theirs‖ / ‖theirs‖ over all weights."""
    square = whole = 0.0
    for file in sorted(theirs.glob("*.safetensors")):
        with safe_open(file, framework="pt") as there, safe_open(ours / _only(ours), framework="pt") as here:
            for name in there.keys():  # noqa: SIM118 (no mapping)
                b = there.get_tensor(name).float()
                square += (here.get_tensor(name).float() - b).square().sum().item()
                whole += b.square().sum().item()
    return (square / whole) ** 0.5


def _only(folder: Path) -> str:
    return next(folder.glob("*.safetensors")).name
