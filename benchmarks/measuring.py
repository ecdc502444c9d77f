"""Alternating timings, medians, peak memory and what the machine is."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

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


#: What the seconds of ``Timer`` are; on a busy machine the process's own time tells more than the wall's.
WALL, PROCESSOR = time.perf_counter, time.process_time


@dataclass
class Timer:
    """Medians of several callables run in turn, so that what else the machine does hits all of them alike."""

    clock: ClassVar[Callable[[], float]] = WALL

    runs: int
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def alternate(self, **candidates: Callable[[], object]) -> dict[str, object]:
        """Run each ``runs`` times in turn; returns the last results by name."""
        results = {}
        for _ in range(self.runs):
            for name, candidate in candidates.items():
                began = Timer.clock()
                results[name] = candidate()
                self.seconds.setdefault(name, []).append(Timer.clock() - began)
        return results

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def peak_resident_bytes() -> int:
    """Largest resident memory of this process so far (Linux)."""
    return _peak_of("self")


def _peak_of(process: int | str) -> int:
    """Largest resident memory of a process so far, in bytes; 0 where it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def memory_of(process: int) -> tuple[int, int]:
    """Resident bytes of a process now, and its largest so far (Linux)."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line)
    now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def processor_of(process: int) -> float:
    """Seconds of processor time that a process has taken so far (Linux): what other work on the machine hardly changes."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Ran(NamedTuple):
    """Of a command with its imports: wall seconds, largest resident bytes, seconds of processor time."""

    seconds: float
    peak: int
    processor: float


def command(*words: object) -> Ran:
    """What ``python -m dcmerge WORDS`` takes, its cache empty (Linux)."""
    with tempfile.TemporaryDirectory() as cache:
        return ran([sys.executable, "-m", "dcmerge", *map(str, words)], cache)


def ran(command: Sequence[str], cache: str | None = None) -> Ran:
    """What a command takes, with our cache in that folder, or "off" (Linux)."""
    variables = {**os.environ, **({"DCMERGE_CACHE": cache} if cache else {})}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's modules are to be compiled anew each time
    with tempfile.TemporaryFile() as told:
        began, peak, ended = time.perf_counter(), 0, 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told, env=variables)
        while not ended:
            peak = max(peak, _peak_of(process.pid))  # not rusage's, which begins with what this process held when it started it
            time.sleep(0.01)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            told.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}: {told.read()[-2000:].decode()}")
    return Ran(seconds, peak, usage.ru_utime + usage.ru_stime)


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


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖."""
    return ((found - wanted).norm() / wanted.norm().clamp_min(1e-30)).item()
