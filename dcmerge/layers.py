"""One parameter of every expert, with the factors that methods and pictures share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dcmerge.alignment import CoverBasis, cover_basis
from dcmerge.checkpoints import LowRank
from dcmerge.compatibility import Kind, Parameter
from dcmerge.linalg import SVD, truncated_svd
from dcmerge.task_vectors import Delta, TaskVectors


@dataclass(frozen=True)
class Layer:
    """The deltas of one parameter. Factors and bases are computed once per set and shared: never change them in place."""

    vectors: TaskVectors
    parameter: Parameter
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parameter.shape

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.vectors.tasks

    @property
    def is_matrix(self) -> bool:
        return self.parameter.kind is Kind.MATRIX

    def deltas(self) -> list[Delta]:
        """One delta a task: dense, or LowRank from an adapter."""
        return [delta.to(self.dtype) for delta in self.vectors.deltas(self.name)]

    def dense_deltas(self) -> Tensor:
        """All deltas as one stack, (T, *shape)."""
        return torch.stack([_dense(delta) for delta in self.deltas()])

    def dense_delta(self, task: str) -> Tensor:
        """One task's delta, (*shape)."""
        return _dense(self.vectors.delta(self.name, task).to(self.dtype))

    def default_rank(self) -> int:
        """floor(min(m, n) / T) for full fine-tuning; for adapters their rank, where T of that fit into min(m, n)."""
        share = min(self.shape) // len(self.tasks)
        if self.vectors.kind == "full":
            return share
        return min(share, max(delta.rank for delta in self.deltas()))

    def rank(self, wanted: int | None) -> int:
        """The rank in use: ``wanted``, or the default, at most floor(min(m, n) / T) so that one basis covers all tasks."""
        return self.default_rank() if wanted is None else min(wanted, min(self.shape) // len(self.tasks))

    def joint_rank(self) -> int:
        """How many directions the sum of all deltas can have: min(m, n), of adapters at most the sum of their ranks."""
        if self.vectors.kind == "full":
            return min(self.shape)
        return min(*self.shape, sum(delta.rank for delta in self.deltas()))

    def factors(self, rank: int) -> tuple[SVD, ...]:
        """The truncated SVD of every delta; a smaller rank than before reuses what is there."""
        stored = self.vectors.memo.get(
            (self.name, "factors", self.dtype),
            lambda: tuple(_padded(truncated_svd(delta, rank), rank) for delta in self.deltas()),
            fits=lambda known: known[0].rank >= rank,
        )
        return tuple(svd.truncate(rank) for svd in stored)

    def spectra(self) -> list[Tensor]:
        """All singular values of every delta, descending; one tensor a task."""
        return [svd.spectrum for svd in self.factors(self.default_rank())]

    def cover_basis(self, rank: int) -> CoverBasis:
        """The shared basis of the experts' leading ``rank`` directions."""
        key = (self.name, "cover basis", rank, self.dtype)
        return self.vectors.memo.get(key, lambda: cover_basis(self.factors(rank)))


def _dense(delta: Delta) -> Tensor:
    return delta.dense() if isinstance(delta, LowRank) else delta


def _padded(svd: SVD, rank: int) -> SVD:
    """An adapter of a smaller rank than the others gets components of singular value zero."""
    lacking = rank - svd.rank
    if lacking <= 0:
        return svd
    pad = torch.nn.functional.pad
    return SVD(pad(svd.U, (0, lacking)), pad(svd.s, (0, lacking)), pad(svd.V, (0, lacking)), svd.spectrum)


def layer_of(vectors: TaskVectors, name: str, dtype: torch.dtype = torch.float32) -> Layer:
    """The layer of one parameter, by its canonical name."""
    return Layer(vectors, vectors.parameters[name], dtype)
