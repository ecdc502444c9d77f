"""How the deltas of one parameter relate: sums that add up over parameters, so that blocks and the whole set come for free.

Every number of a pair is a ratio of such sums. So the cosine of a block, or of two whole task vectors, weighs each matrix by its
energy (the sum of s²), and nothing is averaged over matrices of which one hardly changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.spectral.alignment import chance_overlap, gram
from dcmerge.spectral.linalg import SVD
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta

#: An expert's main directions in a matrix: the fewest that hold this share of the energy (sum of s²).
MAIN_SHARE = 0.5
#: So many entries of a parameter tell the share of signs in conflict to a tenth of a point.
_ENTRIES = 1 << 18


@dataclass(frozen=True, eq=False)
class Relations:
    """Sums over some parameters, all float64, for T experts.

    ``entries`` (): how many numbers they have. ``inner`` (T, T): ⟨D_s, D_t⟩. Of the entries that are looked at: ``signed`` (T,
    T) Σ a b, ``sizes`` (T, T) Σ |a| |b|, and the same two for entries that are shuffled, ``shuffled_apart`` (T, T) of opposite
    signs, ``shuffled`` (T, T) of all. Of matrices: ``energy`` (T,) ‖D‖², ``largest`` (T,) s_1², and by side, outputs (U) and
    inputs (V), ``shared`` (2, T, T) ‖A_sᵀ A_t‖² of the main directions, its mean ``chance`` and ``variance`` for independent
    subspaces, and the most that is ``possible``.
    """

    entries: Tensor
    inner: Tensor
    signed: Tensor
    sizes: Tensor
    shuffled_apart: Tensor
    shuffled: Tensor
    energy: Tensor
    largest: Tensor
    shared: Tensor
    chance: Tensor
    variance: Tensor
    possible: Tensor

    def __add__(self, other: Relations) -> Relations:
        return Relations(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Relations)))

    @property
    def norms(self) -> Tensor:
        """‖D_t‖ over these parameters, (T,)."""
        return self.inner.diagonal().clamp_min(0).sqrt()


def relations(layer: Layer) -> Relations:
    """The sums of one parameter; one parameter's deltas are in memory at a time, adapters stay factors."""
    deltas = layer.deltas()
    inner, T = gram(deltas), len(deltas)
    zeros = torch.zeros(T, dtype=torch.float64)
    sides = (torch.zeros(2, T, T, dtype=torch.float64) for _ in range(4))
    energy, largest = zeros, zeros
    if layer.is_matrix:
        energy = inner.diagonal()
        main = [_main(svd, own) for svd, own in zip(layer.factors(max(1, layer.default_rank())), energy.tolist(), strict=True)]
        largest = torch.tensor([svd.s[:1].double().square().sum() for svd in main], dtype=torch.float64)
        sides = _overlaps(main, layer.shape)
    entries = torch.tensor(float(_count(deltas[0])), dtype=torch.float64)
    return Relations(entries, inner, *_signs(deltas), energy, largest, *sides)


def _main(svd: SVD, energy: float) -> SVD:
    """The leading components that hold half the energy; at most those that a task's share of the directions has room for."""
    svd = svd.present()
    held = svd.s.double().square().cumsum(0)
    return svd.truncate(int((held < MAIN_SHARE * energy).sum()) + 1)


def _overlaps(main: Sequence[SVD], shape: Sequence[int]) -> tuple[Tensor, ...]:
    """Observed, by chance, its variance, and possible; each (2, T, T)."""
    found: list[list[list[tuple[float, ...]]]] = []
    for side, width in zip("UV", shape, strict=True):
        vectors = [getattr(svd, side).double() for svd in main]
        found.append([[_pair(A, B, width) for B in vectors] for A in vectors])
    table = torch.tensor(found, dtype=torch.float64)  # (2, T, T, 4)
    return tuple(table.unbind(dim=-1))


def _pair(A: Tensor, B: Tensor, width: int) -> tuple[float, ...]:
    p, q = A.shape[1], B.shape[1]
    return (A.T @ B).square().sum().item(), *chance_overlap(p, q, width), float(min(p, q))


def _signs(deltas: Sequence[Delta]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``signed``, ``sizes``, ``shuffled_apart`` and ``shuffled`` of evenly spaced rows, scaled up to all of them.

    If the entries of one expert were shuffled, a product |a| |b| would be apart where signs differ: (P_s N_t + N_s P_t) / n with
    the sums P of positive and N of negative magnitudes, out of (P_s + N_s)(P_t + N_t) / n. That is the baseline of the conflict.
    """
    entries = torch.stack([_some_rows(delta) for delta in deltas]).double()
    sizes = entries.abs()
    positive, n = entries.clamp_min(0).sum(dim=1), max(1, entries.shape[1])
    negative = sizes.sum(dim=1) - positive
    apart = torch.outer(positive, negative) + torch.outer(negative, positive)
    every = torch.outer(positive + negative, positive + negative)
    more = _count(deltas[0]) / n
    return more * entries @ entries.T, more * sizes @ sizes.T, more * apart / n, more * every / n


def _count(delta: Delta) -> int:
    return delta.numel() if isinstance(delta, Tensor) else delta.shape[0] * delta.shape[1]


def _some_rows(delta: Delta) -> Tensor:
    """Entries of rows at even distances, so many that they hold about ``_ENTRIES``; of factors only these rows are multiplied."""
    if isinstance(delta, Tensor) and delta.dim() < 2:
        return delta.flatten()
    height, count = delta.shape[0], _count(delta)
    kept = max(1, min(height, _ENTRIES * height // max(1, count)))
    rows = torch.linspace(0, height - 1, kept, dtype=torch.float64).round().long()
    if isinstance(delta, LowRank):
        return LowRank(delta.left[rows], delta.right).dense().flatten()
    return delta[rows].flatten()
