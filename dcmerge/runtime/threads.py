"""Where work runs: the device, and how many of torch's threads a piece of it takes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from dcmerge.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def compute_device() -> torch.device:
    """Where decompositions and image encoders run: a CUDA device where there is one, unless ``DCMERGE_DEVICE`` says "cpu".

    Their results are on the CPU. Raises InputError for another name, and for "cuda" where there is none.
    """
    named, there = os.environ.get("DCMERGE_DEVICE", ""), torch.cuda.is_available()
    if named not in ("", "cpu", "cuda") or (named == "cuda" and not there):
        raise InputError(f"DCMERGE_DEVICE: expected {'cpu or cuda' if there else 'cpu'}, got {named!r}")
    return torch.device(named or ("cuda" if there else "cpu"))


def on_all_threads(function: Callable[[Item], Result], items: Sequence[Item], worth: bool = True) -> list[Result]:
    """``function`` of every item, one thread each, as many at once as torch may use.

    Eigenvectors scale badly over threads, and two matrices at once well. With one thread, or where the work is too small to be
    ``worth`` it, a plain loop.
    """
    threads = torch.get_num_threads() if compute_device().type == "cpu" else 1
    if threads == 1 or len(items) < 2 or not worth:
        return [function(item) for item in items]
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, len(items)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)


@cache
def _keep_freed_memory() -> None:
    """Have the C library keep a few MB of freed memory for the next block, instead of asking the system for it each time.

    glibc takes the largest block freed so far, up to 32 MiB, for what is usual and keeps twice as much; page by page the system
    would clear it again, which takes longer than the arithmetic. Elsewhere this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def ahead_on_all_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
    """``function`` of every item in order, as ``on_all_threads``, but as they are asked for: only a few are computed ahead.

    While one result is used the next ones are in work. Close the iterator where not all are taken.
    """
    _keep_freed_memory()
    threads = torch.get_num_threads() if compute_device().type == "cpu" else 1
    if threads == 1 or len(items) < 2:
        yield from map(function, items)
        return
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = deque(pool.submit(function, item) for item in items[: threads + 1])
        for item in items[threads + 1 :]:
            result = waiting.popleft().result()
            waiting.append(pool.submit(function, item))
            yield result
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
