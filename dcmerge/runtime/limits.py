"""Bounds that the system keeps for this process: of memory, and of processor time for what it does next."""

from __future__ import annotations

import ctypes
import math
import os
import time
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

_CGROUPS = Path("/sys/fs/cgroup")


def address_space() -> int | None:
    """Bytes of this process's address space; None where the system does not tell, and does not keep such a limit either."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return None


def free_memory() -> int | None:
    """Bytes that processes may still take: what the system has available, within the limits of its containers (cgroups).

    None where the system does not tell.
    """
    found = [_available(), *map(_free_in, _cgroups())]
    return min((one for one in found if one is not None), default=None)


def _available() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _cgroups() -> list[Path]:
    """The folders of this process's group and of those around it, in either version's layout."""
    found = [_CGROUPS / "memory", _CGROUPS]
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers in ("", "memory"):
                own = _CGROUPS / controllers / place.lstrip("/")
                found += [own, *own.parents[: len(Path(place).parts)]]
    return list(dict.fromkeys(found))


def _free_in(group: Path) -> int | None:
    """Bytes below one group's limit, its caches of files counted as free; None without a limit."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):  # "max" is no number, and no limit
            below = int((group / limit).read_text()) - int((group / used).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return max(0, below + int(stat.get(cached, 0)))
    return None


def give_back_memory() -> None:
    """Hand what was freed back to the system: the C library keeps it by thread, half a gigabyte and more after large matrices.

    Elsewhere than with glibc this does nothing.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


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
