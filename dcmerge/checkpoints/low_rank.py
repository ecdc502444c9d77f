"""A delta kept as its two factors: the product is formed only where somebody asks for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: A product of factors whose square falls below this share of theirs is summed again in float64: much of it cancels.
_CANCELLED = 1e-4


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

    def rows(self, start: int, stop: int) -> LowRank:
        """Rows ``start`` to ``stop`` of the matrix: those of ``left``."""
        return LowRank(self.left[start:stop], self.right)

    @classmethod
    def zeros(cls, shape: tuple[int, int]) -> LowRank:
        """The zero matrix (m, n), of rank 0."""
        return cls(torch.zeros(shape[0], 0), torch.zeros(0, shape[1]))

    def padded(self, rank: int) -> LowRank:
        """The same matrix with an inner dimension of at least ``rank``: further columns and rows are zero."""
        lacking = max(0, rank - self.rank)
        pad = torch.nn.functional.pad
        return LowRank(pad(self.left, (0, lacking)), pad(self.right, (0, 0, 0, lacking))) if lacking else self

    def inner(self, other: LowRank) -> float:
        """⟨L R, L' R'⟩ = tr((LᵀL')(R'Rᵀ)) in float64, without a product of size (m, n)."""
        (L, R), (L_, R_) = ((one.left.double(), one.right.double()) for one in (self, other))
        return ((L.T @ L_) * (R @ R_.T)).sum().item()

    def square(self) -> float:
        """‖L R‖_F²; NaN or infinite if, and unless float64 overflows only if, an entry of a factor is."""
        if self.left.dtype == self.right.dtype == torch.float32:  # half the time, good to 1e-6 where nothing cancels
            G, H = (self.left.T @ self.left).double(), (self.right @ self.right.T).double()
            square = (G * H).sum().item()
            if square > _CANCELLED * (G.trace() * H.trace()).item():
                return square
        square = self.inner(self)
        return max(square, 0.0) if math.isfinite(square) else square

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


def stacked(parts: Sequence[Tensor | LowRank]) -> Tensor | LowRank:
    """Matrices or vectors on top of each other, (Σ m_i, n); of factors as one pair of factors, whose ranks add up."""
    if len(parts) == 1:
        return parts[0]
    factors = [part for part in parts if isinstance(part, LowRank)]
    if len(factors) == len(parts):
        return LowRank(torch.block_diag(*[part.left for part in factors]), torch.cat([part.right for part in factors]))
    return torch.cat([dense(part) for part in parts])


def total(deltas: Sequence[Tensor | LowRank]) -> Tensor | LowRank:
    """The sum of deltas of one shape; of factors as one pair of factors, whose ranks add up."""
    factors = [delta for delta in deltas if isinstance(delta, LowRank)]
    if len(factors) == len(deltas):
        return LowRank(torch.cat([d.left for d in factors], dim=1), torch.cat([d.right for d in factors], dim=0))
    # One after another, so that a part of the matrix has the same sum, to the last bit, as it has in the whole.
    found = dense(deltas[0]).clone()
    for delta in deltas[1:]:
        found += dense(delta)
    return found


def scaled_sum(base: Tensor, delta: Tensor | LowRank, scale: float) -> Tensor:
    """``base + scale · delta``."""
    return delta.added_to(base, scale) if isinstance(delta, LowRank) else torch.add(base, delta, alpha=scale)
