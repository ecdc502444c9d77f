"""A delta kept as its two factors: the product is formed only where somebody asks for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LowRank:
    """The matrix ``left @ right`` of shape (m, n) and rank at most r.

    Attributes:
        left: (m, r), with every scale folded in.
        right: (r, n).
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            shapes = f"{tuple(self.left.shape)} and {tuple(self.right.shape)}"
            raise ValueError(f"expected factors of shapes (m, r) and (r, n), got {shapes}")

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n) of the product."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """r, the inner dimension: an upper bound of the product's rank."""
        return self.left.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the product."""
        return torch.promote_types(self.left.dtype, self.right.dtype)

    def dense(self) -> Tensor:
        """The product, (m, n)."""
        return self.left.to(self.dtype) @ self.right.to(self.dtype)

    def to(self, dtype: torch.dtype) -> LowRank:
        """The same factors in another dtype."""
        return LowRank(self.left.to(dtype), self.right.to(dtype))
