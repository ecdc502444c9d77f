"""(m) Full fine-tunes of a language model of a billion parameters: predicted and measured, one merge killed half-way."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.language_models import LARGE, write_models
from benchmarks.measuring import Row, ran
from dcmerge.merging.prediction import Cost, predicted_costs
from dcmerge.runtime.processes import module_command
from dcmerge.vectors.task_vectors import TaskVectors

EXPERTS, SHARDS = 4, 6
#: Methods, and the predicted row that is theirs.
METHODS = {"task_arithmetic": "Weight averaging", "ties": "Weight averaging", "tsv_m": "DC-Merge", "dc_merge": "DC-Merge"}
#: Killed when so much of the model is finished.
_KILLED_AT = 0.5


def large(folder: Path, blocks: int | None) -> Iterator[Row]:
    """A row for each method, the last of which is killed half-way and started again."""
    model = replace(LARGE, blocks=blocks or LARGE.blocks)
    base, experts = write_models(folder / f"llama-large-{model.blocks}", model, EXPERTS, SHARDS)
    said = f"{EXPERTS} full fine-tunes of {model.count / 1e9:.2g} billion parameters ({model.blocks} blocks), bfloat16"
    given = [f"--base={base}", *(f"--expert={task}={path}" for task, path in experts.items())]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        for slug, title in METHODS.items():
            cost, place = _predicted(base, experts)[title], Path(out, slug)
            words = ["merge", f"--threads={torch.get_num_threads()}", *given, f"--method={slug}", f"--out={place}"]
            merge = module_command("dcmerge", *words)
            before = _killed(merge, place, int(2 * model.count * _KILLED_AT)) if slug == "dc_merge" else 0.0
            once = ran(merge, "off")
            yield Row(
                "m",
                f"{said}: {slug}",
                None,
                before + once.seconds,
                None,
                "< 8 GiB",
                1,
                _compared(cost, before + once.seconds, once.peak)
                + (f"; killed after {before:.0f} s, the same command went on for {once.seconds:.0f} s" if before else ""),
            )


def _predicted(base: Path, experts: dict[str, Path]) -> dict[str, Cost]:
    vectors = TaskVectors.open(base, experts)
    return predicted_costs(vectors.base, vectors.experts, vectors.parameters.values())


def _compared(cost: Cost, seconds: float, peak: int) -> str:
    return (
        f"predicted {cost.seconds:.0f} s and {cost.peak_bytes / 2**30:.2f} GiB, measured {seconds:.0f} s and "
        f"{peak / 2**30:.2f} GiB resident"
    )


def _killed(merge: list[str], out: Path, finished: int) -> float:
    """Seconds until it has finished so many bytes, and is killed."""
    began = time.perf_counter()
    process = subprocess.Popen(merge, stdout=subprocess.DEVNULL, env={**os.environ, "DCMERGE_CACHE": "off"})
    while process.poll() is None:
        if any(part.stat().st_size >= finished for part in out.parent.glob(f".{out.name}.kept.*.part")):
            process.kill()
        time.sleep(0.5)
    return time.perf_counter() - began
