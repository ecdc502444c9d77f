"""Locks that the system releases when their holder dies, however it dies: who holds one is alive."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcmerge.errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks; everything but jobs works there
    fcntl = None  # type: ignore[assignment]


def acquire(path: Path, seconds: float = 0.0) -> int | None:
    """Take the lock for this process and return its file descriptor; None where another holds it for ``seconds``.

    A process that inherits the descriptor holds the lock too: it is free when all of them have closed it or died.
    Raises InputError where the system has no such locks.
    """
    return _locked(path, exclusive=True, seconds=seconds)


def held(path: Path) -> bool:
    """Whether a process holds the lock."""
    if not path.exists():
        return False
    found = _locked(path, exclusive=False, seconds=0.0)
    if found is None:
        return True
    os.close(found)
    return False


@contextmanager
def locked(path: Path, seconds: float = 0.0) -> Iterator[int | None]:
    """``acquire`` for the length of a block; the block gets None where another process holds the lock."""
    found = acquire(path, seconds)
    try:
        yield found
    finally:
        if found is not None:
            os.close(found)


def _locked(path: Path, *, exclusive: bool, seconds: float) -> int | None:
    if fcntl is None:
        raise InputError("expected a system with file locks (Linux or macOS) to run jobs on, got another")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
        time.sleep(0.01)
