"""A bounded, thread-safe memory of factors, bases and results."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")
#: What one set of task vectors may remember, in bytes.
MEMO_BYTES = 1 << 30


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


class Memo:
    """Least recently used values leave first once their tensors exceed ``max_bytes``. Values are shared: never change them."""

    def __init__(self, max_bytes: int = MEMO_BYTES) -> None:
        self.max_bytes = max_bytes
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()

    def get(self, key: Hashable, compute: Callable[[], T], *, fits: Callable[[T], bool] = lambda value: True) -> T:
        """The value under ``key`` if there is one and it ``fits``, else ``compute()``, remembered."""
        with self._lock:
            if key in self._values and fits(self._values[key][0]):
                self._values.move_to_end(key)
                return self._values[key][0]
        value = compute()
        self._store(key, value)
        return value

    def _store(self, key: Hashable, value: Any) -> None:
        size = tensor_bytes(value)
        with self._lock:
            self._bytes += size - self._values.pop(key, (None, 0))[1]
            self._values[key] = (value, size)
            while self._bytes > self.max_bytes and len(self._values) > 1:
                _, (_, gone) = self._values.popitem(last=False)
                self._bytes -= gone
