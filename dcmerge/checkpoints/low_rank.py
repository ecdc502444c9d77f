"""A delta kept as its two factors: the product is formed only where somebody asks for it."""

from __future__ import annotations

from collections.abc import Sequence
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

    def __mul__(self, scale: float) -> LowRank:
        """The scaled matrix, its scale folded into ``left``."""
        return LowRank(scale * self.left, self.right)

    __rmul__ = __mul__

    def added_to(self, matrix: Tensor, scale: float = 1.0) -> Tensor:
        """``matrix + scale · left @ right``, (m, n), in the matrix's dtype."""
        left, right = self.left.to(matrix.dtype), self.right.to(matrix.dtype)
        return torch.addmm(matrix, left, right, alpha=scale)

    def to(self, dtype: torch.dtype) -> LowRank:
        """The same factors in another dtype."""
        return LowRank(self.left.to(dtype), self.right.to(dtype))


def dense(delta: Tensor | LowRank) -> Tensor:
    """A delta as one tensor."""
    return delta.dense() if isinstance(delta, LowRank) else delta


def total(deltas: Sequence[Tensor | LowRank]) -> Tensor | LowRank:
    """The sum of deltas of one shape; of factors as one pair of factors, whose ranks add up."""
    if all(isinstance(delta, LowRank) for delta in deltas):
        return LowRank(torch.cat([d.left for d in deltas], dim=1), torch.cat([d.right for d in deltas], dim=0))
    return torch.stack([dense(delta) for delta in deltas]).sum(dim=0)


def scaled_sum(base: Tensor, delta: Tensor | LowRank, scale: float) -> Tensor:
    """``base + scale · delta``."""
    return delta.added_to(base, scale) if isinstance(delta, LowRank) else base + scale * delta
