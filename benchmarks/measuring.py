"""Alternating timings, medians, peak memory and what the machine is."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch


@dataclass
class Row:
    """One line of the table: seconds (medians), their ratio, the error between both results, the target and remarks."""

    case: str
    what: str
    plain: float | None = None
    ours: float | None = None
    error: float | None = None
    target: str = ""
    runs: int = 1
    remark: str = ""

    @property
    def ratio(self) -> float | None:
        return self.plain / self.ours if self.plain and self.ours else None


@dataclass
class Timer:
    """Medians of several callables run in turn, so that what else the machine does hits all of them alike."""

    runs: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def alternate(self, **candidates: Callable[[], object]) -> dict[str, object]:
        """Run each ``runs`` times in turn; returns the last results by name."""
        results = {}
        for _ in range(self.runs):
            for name, candidate in candidates.items():
                began = time.perf_counter()
                results[name] = candidate()
                self.seconds.setdefault(name, []).append(time.perf_counter() - began)
        return results

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def peak_resident_bytes() -> int:
    """Largest resident memory of this process so far (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def command(*words: object) -> tuple[float, int]:
    """Wall seconds and largest resident bytes of ``python -m dcmerge WORDS``, imports included, its cache empty (Linux)."""
    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "dcmerge", *map(str, words)],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "DCMERGE_CACHE": cache},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"dcmerge {words[0]} ended with code {process.returncode}")
    return seconds, usage.ru_maxrss * 1024


def machine() -> str:
    """Processor, cores, memory, versions and threads in one sentence."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB memory; Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} thread(s)"
    )


def fitted_exponent(sizes: list[float], seconds: list[float]) -> float:
    """Slope of log seconds over log size by least squares."""
    x, y = torch.tensor(sizes).double().log(), torch.tensor(seconds).double().log()
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x @ x))
