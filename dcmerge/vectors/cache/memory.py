"""Thread-safe memories of factors, bases and results, all within one bound of the process."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.runtime.limits import free_memory

T = TypeVar("T")
#: How much all memories of a process may hold together, in bytes; without it half of the memory that is free.
MEMORY_VARIABLE = "DCMERGE_MEMORY_BYTES"
#: What a merge into a file remembers at most, in bytes, and a process where the system does not say what is free.
MEMO_BYTES = 1 << 30
#: So much a process may remember on any machine; and so many names of what has left.
_LEAST_BYTES, _REMEMBERED_NAMES = 256 << 20, 1 << 12
#: A memory that nobody asked for so long (seconds) leaves before anything of the others.
_FORGOTTEN = 300.0


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


#: Of a value: the memory that it is in, and its key there.
_Name = tuple[int, Hashable]


class Budget:
    """What several memories hold, within one bound: ``max_bytes``, else ``DCMERGE_MEMORY_BYTES``, else half of what is free.

    What leaves first: everything of a memory that nobody asks any more; then values of low worth, which are needed less or
    sooner had again; of equal worth the least recently used. Where a value is asked for that had left, a set is walked in order
    that does not fit, and the least recently used is what comes next: then the one used last leaves, so that most of the set
    stays, unless others were not used for two walks.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.lock = threading.RLock()
        self._values: OrderedDict[_Name, _Held] = OrderedDict()
        self._gone: OrderedDict[_Name, None] = OrderedDict()
        self._bytes: dict[int, int] = {}
        self._asked_at: dict[int, float] = {}
        self._asked = 0
        #: Memories that nobody holds any more: told by the garbage collector, which may run in the midst of anything here.
        self.dead: deque[int] = deque()

    @property
    def held(self) -> int:
        """Bytes of the tensors that all memories hold."""
        with self.lock:
            self._bury()
            return sum(self._bytes.values())

    def held_by(self, owner: int) -> int:
        """Bytes of the tensors that one memory holds."""
        return self._bytes.get(owner, 0)

    def limit(self) -> int:
        """The most that all may hold, in bytes. Raises InputError where the variable is not a number of bytes."""
        if self.max_bytes is not None:
            return self.max_bytes
        named = os.environ.get(MEMORY_VARIABLE, "")
        if named and not named.isdecimal():
            raise InputError(f"{MEMORY_VARIABLE}: expected a number of bytes, got {named!r}")
        free = free_memory()
        return int(named) if named else MEMO_BYTES if free is None else max(_LEAST_BYTES, (free + self.held) // 2)

    def find(self, name: _Name) -> _Held | None:
        """What is held under a name, which counts as a use of it."""
        self._bury()
        self._asked += 1
        self._asked_at[name[0]] = time.monotonic()
        found = self._values.get(name)
        if found is not None:
            found.used = self._asked
            self._values.move_to_end(name)
        return found

    def hold(self, name: _Name, value: Any, worth: int, own_limit: int | None, own_most: int | None) -> None:
        """Keep a value, and let others leave until all are within the bound, and the memory within its own two."""
        owner, limit = name[0], self.limit()
        self.drop(name)
        self._values[name] = _Held(value, tensor_bytes(value), worth, self._asked)
        self._bytes[owner] = self.held_by(owner) + self._values[name].nbytes
        came_back = name in self._gone
        if own_limit is not None:
            self._make_room(name, came_back, lambda: self.held_by(owner) > own_limit, owner)
        if own_most is not None:
            self._make_room(name, False, lambda: sum(one[0] == owner for one in self._values) > own_most, owner)
        self._make_room(name, came_back, lambda: self.held > limit)
        self._gone.pop(name, None)
        while len(self._gone) > _REMEMBERED_NAMES:
            self._gone.popitem(last=False)

    def peek(self, name: _Name) -> _Held | None:
        """The same without counting."""
        return self._values.get(name)

    def held_values(self, owner: int) -> dict[Hashable, Any]:
        """What one memory holds, by key."""
        return {key: held.value for (number, key), held in self._values.items() if number == owner}

    def drop(self, name: _Name) -> None:
        """Forget one value."""
        if held := self._values.pop(name, None):
            self._bytes[name[0]] -= held.nbytes

    def _bury(self) -> None:
        """Forget the dead with all that they hold."""
        while self.dead:
            owner = self.dead.popleft()
            for name in [name for name in self._values if name[0] == owner]:
                del self._values[name]
            for name in [name for name in self._gone if name[0] == owner]:
                del self._gone[name]
            self._bytes.pop(owner, None)
            self._asked_at.pop(owner, None)

    def _make_room(self, newest: _Name, came_back: bool, too_much: Callable[[], bool], owner: int | None = None) -> None:
        """Let values leave, of one memory or of all, while there is too much."""
        while too_much():
            others = [name for name in self._values if name != newest and owner in (None, name[0])]
            if not others:
                return
            leaving = self._leaving(others, came_back)
            self.drop(leaving)
            self._gone[leaving] = None

    def _leaving(self, others: list[_Name], came_back: bool) -> _Name:
        now = time.monotonic()
        if old := [name for name in others if now - self._asked_at[name[0]] > _FORGOTTEN]:
            return old[0]
        least = min(self._values[name].worth for name in others)
        cheap = [name for name in others if self._values[name].worth == least]
        walk = len(self._values) + len(self._gone)
        is_fresh = self._asked - self._values[cheap[0]].used <= 2 * walk
        return cheap[-1] if came_back and is_fresh else cheap[0]


#: Of everything in this process: two open sets neither add up nor push each other out without need.
BUDGET = Budget()
_numbers = itertools.count()


class Memo:
    """Values by key: with all other memories within ``budget``, alone within ``max_bytes``, and at most ``most`` of them.

    Never change a value. It is computed once: whoever asks for it meanwhile waits. All leave when nobody holds the memory.
    """

    def __init__(self, max_bytes: int | None = None, *, most: int | None = None, budget: Budget = BUDGET) -> None:
        self.max_bytes, self.most = max_bytes, most
        self._budget, self._number = budget, next(_numbers)
        self._computing: dict[Hashable, tuple[threading.RLock, list[int]]] = {}
        weakref.finalize(self, budget.dead.append, self._number).atexit = False

    @property
    def held(self) -> int:
        """Bytes of the tensors that are held."""
        return self._budget.held_by(self._number)

    def get(
        self, key: Hashable, compute: Callable[[], T], *, fits: Callable[[T], bool] = lambda value: True, worth: int = 1
    ) -> T:
        """The value under ``key`` if there is one and it ``fits``, else ``compute()``, remembered."""
        name = (self._number, key)
        with self._budget.lock:
            found = self._budget.find(name)
        if found is not None and fits(found.value):
            return found.value
        with self._alone(key):
            found = self._budget.peek(name)
            if found is not None and fits(found.value):  # another thread computed it meanwhile
                return found.value
            value = compute()
            with self._budget.lock:
                self._budget.hold(name, value, worth, self.max_bytes, self.most)
            return value

    def values(self) -> dict[Hashable, Any]:
        """What is held now, by key; asking counts as no use."""
        with self._budget.lock:
            return self._budget.held_values(self._number)

    @contextmanager
    def within(self, max_bytes: int) -> Iterator[None]:
        """For the length of a block at most so many bytes: for work that needs each value once."""
        before, self.max_bytes = self.max_bytes, max_bytes if self.max_bytes is None else min(max_bytes, self.max_bytes)
        try:
            yield
        finally:
            self.max_bytes = before

    @contextmanager
    def _alone(self, key: Hashable) -> Iterator[None]:
        """One thread at a time for a key. Values need others in one direction only, so nobody waits in a circle."""
        with self._budget.lock:
            lock, waiting = self._computing.setdefault(key, (threading.RLock(), [0]))
            waiting[0] += 1
        try:
            with lock:
                yield
        finally:
            with self._budget.lock:
                waiting[0] -= 1
                if not waiting[0]:
                    self._computing.pop(key, None)
