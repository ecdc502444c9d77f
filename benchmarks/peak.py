"""Merge into a file and say how long it took and how much memory was resident at most; one process, one merge."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import peak_resident_bytes
from dcmerge.merging.merge import merge_to_file
from dcmerge.vectors.memory_needed import predicted_peak_bytes
from dcmerge.vectors.task_vectors import TaskVectors


def main(slug: str, folder: str, count: str) -> None:
    """Print JSON: seconds, peak and predicted resident bytes."""
    experts = {f"task{t}": Path(folder) / f"task{t}.safetensors" for t in range(int(count))}
    began = time.perf_counter()
    vectors = TaskVectors.open(Path(folder) / "base.safetensors", experts)
    vectors.store = None
    with tempfile.TemporaryDirectory(dir=folder) as out:
        merge_to_file(vectors, slug, Path(out) / "merged.safetensors")
    seconds, predicted = time.perf_counter() - began, predicted_peak_bytes(vectors.parameters.values(), len(experts))
    print(json.dumps({"seconds": seconds, "peak": peak_resident_bytes(), "predicted": predicted}))


if __name__ == "__main__":
    main(*sys.argv[1:])
