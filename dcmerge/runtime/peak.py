"""How much memory a piece of work asked for, seen from outside."""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import suppress
from pathlib import Path

_STATM = Path("/proc/self/statm")
_SECONDS_BETWEEN_LOOKS = 0.01


class PeakMemory:
    """``with PeakMemory() as peak: work()``; then ``peak.growth`` is how many bytes the process grew by at its largest.

    A thread reads the process' resident memory a hundred times a second, so a shorter peak is missed. What earlier work left
    to the process is given back first where the C library can; what it keeps is not counted: a lower bound. None where the
    system does not say.
    """

    def __init__(self) -> None:
        self.growth: int | None = None
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look, name="peak memory", daemon=True)
        _give_back()
        self._start = self._largest = 0

    def __enter__(self) -> PeakMemory:
        _give_back()
        self._start = self._largest = resident_bytes() or 0
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()
        self._take()
        self.growth = self._largest - self._start if self._start else None

    def _look(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            self._take()

    def _take(self) -> None:
        self._largest = max(self._largest, resident_bytes() or 0)


def resident_bytes() -> int | None:
    """Resident memory of this process; None where the system has no /proc."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def _give_back() -> None:
    """Return freed memory to the system, so that work which reuses it is seen to grow."""
    with suppress(OSError, AttributeError, TypeError):  # other C libraries have no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
