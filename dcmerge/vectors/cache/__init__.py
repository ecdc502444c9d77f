"""Values that are computed once: in memory (Memo) and, for what took long, in files that later processes read (Store)."""

from dcmerge.vectors.cache.disk import Store, content_key, default_store
from dcmerge.vectors.cache.memory import BUDGET, MEMO_BYTES, Budget, Memo, tensor_bytes

__all__ = ["BUDGET", "MEMO_BYTES", "Budget", "Memo", "Store", "content_key", "default_store", "tensor_bytes"]
