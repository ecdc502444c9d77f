"""A bounded, thread-safe memory of factors, bases and results."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor

from dcmerge.runtime.limits import free_memory

T = TypeVar("T")
#: What a merge into a file remembers at most, in bytes, and a set where the system does not say what is free.
MEMO_BYTES = 1 << 30
#: So much a set may remember on any machine; and so many names of what has left.
_LEAST_BYTES, _REMEMBERED_NAMES = 256 << 20, 1 << 12


def tensor_bytes(value: Any) -> int:
    """Bytes of the tensors inside a value: a tensor, a dataclass, a mapping or a sequence of such."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(tensor_bytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, dict):
        return sum(tensor_bytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(tensor_bytes(item) for item in value)
    return 0


@dataclasses.dataclass
class _Held:
    value: Any
    nbytes: int
    worth: int
    used: int  # the number of the question that it answered last


class Memo:
    """Values by key, bounded by ``max_bytes`` of their tensors, else by half of the memory that is free. Never change a value.

    What leaves first: values of low worth, which are needed less or sooner had again; of equal worth the least recently used.
    Where a value is asked for that had left, a set is walked in order that does not fit, and the least recently used is what
    comes next: then the one used last leaves, so that most of the set stays, unless others were not used for two walks.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self._values: OrderedDict[Hashable, _Held] = OrderedDict()
        self._gone: OrderedDict[Hashable, None] = OrderedDict()
        self._bytes = self._asked = 0
        self._lock = threading.RLock()

    @property
    def held(self) -> int:
        """Bytes of the tensors that are held."""
        return self._bytes

    def get(
        self, key: Hashable, compute: Callable[[], T], *, fits: Callable[[T], bool] = lambda value: True, worth: int = 1
    ) -> T:
        """The value under ``key`` if there is one and it ``fits``, else ``compute()``, remembered."""
        with self._lock:
            self._asked += 1
            held = self._values.get(key)
            if held is not None and fits(held.value):
                held.used = self._asked
                self._values.move_to_end(key)
                return held.value
        value = compute()
        self._store(key, value, worth)
        return value

    @contextmanager
    def within(self, max_bytes: int) -> Iterator[None]:
        """For the length of a block at most so many bytes: for work that needs each value once."""
        before, self.max_bytes = self.max_bytes, max_bytes if self.max_bytes is None else min(max_bytes, self.max_bytes)
        try:
            yield
        finally:
            self.max_bytes = before

    def _store(self, key: Hashable, value: Any, worth: int) -> None:
        with self._lock:
            self._drop(key)
            self._values[key] = _Held(value, tensor_bytes(value), worth, self._asked)
            self._bytes += self._values[key].nbytes
            limit, came_back = self._limit(), key in self._gone
            while self._bytes > limit and len(self._values) > 1:
                leaving = self._leaving(key, came_back)
                self._drop(leaving)
                self._gone[leaving] = None
            self._gone.pop(key, None)
            while len(self._gone) > _REMEMBERED_NAMES:
                self._gone.popitem(last=False)

    def _limit(self) -> int:
        if self.max_bytes is not None:
            return self.max_bytes
        free = free_memory()
        return MEMO_BYTES if free is None else max(_LEAST_BYTES, (free + self._bytes) // 2)

    def _drop(self, key: Hashable) -> None:
        if held := self._values.pop(key, None):
            self._bytes -= held.nbytes

    def _leaving(self, newest: Hashable, came_back: bool) -> Hashable:
        others = [key for key in self._values if key != newest]
        least = min(self._values[key].worth for key in others)
        cheap = [key for key in others if self._values[key].worth == least]
        walk = len(self._values) + len(self._gone)
        is_fresh = self._asked - self._values[cheap[0]].used <= 2 * walk
        return cheap[-1] if came_back and is_fresh else cheap[0]
