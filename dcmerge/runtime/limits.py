"""Bounds that the system keeps for this process: of memory, and of processor time for what it does next."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None


def address_space() -> int | None:
    """Bytes of this process's address space; None where the system does not tell, and does not keep such a limit either."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return None


def limit_memory(nbytes: int) -> None:
    """From now on this process may grow by so many bytes, and then gets MemoryError; nothing where the system cannot."""
    in_use = address_space()
    if resource is not None and in_use:
        with suppress(ValueError, OSError):  # a lower limit of the user's own is in force
            resource.setrlimit(resource.RLIMIT_AS, (in_use + nbytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


def limit_seconds(seconds: int) -> None:
    """What this process does next may take so many seconds of processor time, and then the system ends it."""
    if resource is not None:
        with suppress(ValueError, OSError):
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, hard))
