"""Values that are computed once: in memory (Memo) and, for what took long, in files that later processes read (Store)."""

from dcmerge.vectors.cache.disk import Store, content_key, default_store
from dcmerge.vectors.cache.memory import MEMO_BYTES, Memo, tensor_bytes

__all__ = ["MEMO_BYTES", "Memo", "Store", "content_key", "default_store", "tensor_bytes"]
