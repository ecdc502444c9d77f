"""One parameter of every expert, with the factors that methods and pictures share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank, dense, total
from dcmerge.runtime.threads import ahead_on_all_threads, on_all_threads
from dcmerge.spectral.alignment import CoverBasis, cover_basis
from dcmerge.spectral.linalg import NUMERICS, SVD, singular_values, truncated_svds
from dcmerge.vectors.cache import content_key
from dcmerge.vectors.compatibility import Kind, Parameter, row_spans
from dcmerge.vectors.naming import Depth
from dcmerge.vectors.task_vectors import Delta, Rows, TaskVectors

Found = TypeVar("Found")
#: Matrices with fewer entries than this are computed as fast as a file is read.
_WORTH_A_FILE = 1 << 16
#: The largest mean that is held, in entries.
_HELD = 1 << 24


@dataclass(frozen=True)
class Layer:
    """The deltas of one parameter. Factors and bases are computed once per set and shared: never change them in place."""

    vectors: TaskVectors
    parameter: Parameter
    dtype: torch.dtype = torch.float32
    #: Of a part of the parameter: its first row and the one after its last; None of the whole.
    rows: Rows | None = None

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def shape(self) -> tuple[int, ...]:
        if self.rows is None:
            return self.parameter.shape
        return (self.rows[1] - self.rows[0], *self.parameter.shape[1:])

    @property
    def first(self) -> int:
        """Where this part begins among the entries of the parameter, row by row."""
        return 0 if self.rows is None else self.rows[0] * math.prod(self.parameter.shape[1:])

    def parts(self) -> tuple[Layer, ...]:
        """The parameter as parts of some rows each, from the top, so small that a processor's cache holds what is made of one.

        The layer alone where it is small, is a part itself, or the files cannot be read by rows.
        """
        if self.rows is not None or not self.vectors.in_rows:
            return (self,)
        return tuple(replace(self, rows=rows) for rows in row_spans(self.shape))

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.vectors.tasks

    @property
    def is_matrix(self) -> bool:
        return self.parameter.kind is Kind.MATRIX

    @property
    def depth(self) -> Depth | None:
        """The block that it belongs to and the number of blocks, read from the names; None outside the blocks.

        A base tells all blocks, adapters without one those up to the last that any of them adapts.
        """
        return self.vectors.depth(self.name)

    @property
    def weights(self) -> Tensor | None:
        """The coefficient by which each delta is multiplied here, (T,) in float64; None without a mix, where all are 1."""
        if not self.vectors.mix:
            return None
        return torch.tensor([self.vectors.coefficient(self.name, task) for task in self.tasks], dtype=torch.float64)

    def deltas(self) -> list[Delta]:
        """One delta a task: dense, or LowRank from an adapter."""
        return [delta.to(self.dtype) for delta in self.vectors.deltas(self.name, rows=self.rows)]

    def factored_deltas(self) -> list[LowRank]:
        """``deltas`` of adapters, for methods that work on the factors; one a task."""
        factored = [delta for delta in self.deltas() if isinstance(delta, LowRank)]
        assert len(factored) == len(self.tasks)  # who asks has made sure that the experts are adapters
        return factored

    def dense_deltas(self) -> Tensor:
        """All deltas as one stack, (T, *shape)."""
        return torch.stack([dense(delta) for delta in self.deltas()])

    def base(self) -> Tensor:
        """θ0 here in the layer's dtype, (*shape)."""
        return self.vectors.base_tensor(self.name, self.rows).to(self.dtype)

    def sum(self) -> Delta:
        """Σ D_t; of adapters as factors."""
        return total(self.deltas())

    def mean(self) -> Delta:
        """(1/T) Σ D_t, with a mix Σ D_t over the sum of the coefficients; of adapters as factors."""
        return self.sum() * (1 / self.vectors.divisor(self.name))

    def held_mean(self) -> Delta:
        """``mean``, remembered where it is not large: what is no matrix is this whatever a method's settings are.

        A copy, the caller's own as every merged delta is.
        """
        if math.prod(self.shape) > _HELD:
            return self.mean()
        held = self.vectors.memo.get((self.name, "mean", self.dtype, self.rows), self.mean, worth=0)
        return LowRank(held.left.clone(), held.right.clone()) if isinstance(held, LowRank) else held.clone()

    def in_kind(self, merged: LowRank) -> Delta:
        """A merged matrix as the deltas came: factors for adapters, dense for full fine-tuning."""
        return merged if self.vectors.kind == "lora" else merged.dense()

    def dense_delta(self, task: str) -> Tensor:
        """One task's delta, (*shape)."""
        return dense(self.vectors.delta(self.name, task).to(self.dtype))

    def default_rank(self) -> int:
        """floor(min(m, n) / T) for full fine-tuning; for adapters their largest rank here, where T of that fit into min(m, n)."""
        share = min(self.shape) // len(self.tasks)
        if self.vectors.kind == "full":
            return share
        return min(share, max(self._adapter_ranks()))

    def _adapter_ranks(self) -> tuple[int, ...]:
        return tuple(adapter.rank_of(self.name) for adapter in self.vectors.adapters)

    def own_ranks(self, rank: int) -> tuple[int, ...]:
        """How many of ``rank`` components each delta can have: all, of adapters at most as many as their own rank."""
        return (rank,) * len(self.tasks) if self.vectors.kind == "full" else tuple(min(rank, r) for r in self._adapter_ranks())

    def rank(self, wanted: int | None) -> int:
        """The rank in use: ``wanted``, or the default, at most floor(min(m, n) / T) so that one basis covers all tasks."""
        return self.default_rank() if wanted is None else min(wanted, min(self.shape) // len(self.tasks))

    def joint_rank(self) -> int:
        """How many directions the sum of all deltas can have: min(m, n), of adapters at most the sum of their ranks."""
        if self.vectors.kind == "full":
            return min(self.shape)
        return min(*self.shape, sum(self._adapter_ranks()))

    def factors(self, rank: int) -> tuple[SVD, ...]:
        """The truncated SVD of every delta; a smaller rank than before reuses what is there."""
        stored = self.vectors.memo.get(
            (self.name, "factors", self.dtype),
            lambda: self._factors(rank),
            fits=lambda known: known[0].rank >= rank,
            worth=0,  # once there is a basis, only pictures need them
        )
        return tuple(svd.truncate(rank) for svd in stored)

    def kept_values(self, rank: int) -> tuple[Tensor, ...]:
        """The leading ``rank`` singular values of every delta, (rank,): all that smoothing needs beside the cover basis."""
        if known := self._plain():
            plain, weights = known
            return tuple(s * abs(weight) for s, weight in zip(plain.kept_values(rank), weights, strict=True))
        stored = self.vectors.memo.get(
            (self.name, "kept values", self.dtype),
            lambda: self._kept_values(rank),
            fits=lambda known: known[0].numel() >= rank,
        )
        return tuple(s[:rank] for s in stored)

    def _kept_values(self, rank: int) -> tuple[Tensor, ...]:
        found = self._stored(
            "kept values",
            lambda: _numbered([svd.s for svd in self.factors(rank)]),
            fits=lambda known: known["0"].numel() >= rank,
        )
        return tuple(found[str(t)] for t in range(len(self.tasks)))

    def _plain(self) -> tuple[Layer, list[float]] | None:
        """The same parameter without a mix, whose singular vectors are these, and the coefficients; None without a mix."""
        weights = self.weights
        if weights is None or self.vectors.plain is None:
            return None
        return Layer(self.vectors.plain, self.parameter, self.dtype), weights.tolist()

    def _factors(self, rank: int) -> tuple[SVD, ...]:
        if found := self._plain():
            plain, weights = found
            return tuple(svd.scaled(weight) for svd, weight in zip(plain.factors(rank), weights, strict=True))
        tensors = self._stored(
            "factors",
            lambda: _as_tensors([_padded(svd, rank) for svd in truncated_svds(self.deltas(), rank, self.vectors.tolerance)]),
            fits=lambda known: known["0.s"].numel() >= rank,
        )
        return tuple(SVD(*(tensors[f"{t}.{part.name}"] for part in fields(SVD))) for t in range(len(self.tasks)))

    def _stored(
        self,
        what: str,
        compute: Callable[[], Mapping[str, Tensor]],
        fits: Callable[[Mapping[str, Tensor]], bool] = lambda known: True,
    ) -> Mapping[str, Tensor]:
        """Tensors from the cache on disk, which knows them by the content of the deltas, or computed and kept there."""
        if self.vectors.store is None or math.prod(self.shape) < _WORTH_A_FILE:
            return compute()
        parts = (f"numerics {NUMERICS}", self.name, str(self.dtype), f"tolerance {self.vectors.tolerance}")
        key = (self.name, "content", self.dtype)
        content = self.vectors.memo.get(key, lambda: content_key(parts, self.deltas()))
        return self.vectors.store.get(content_key([content, what], ()), compute, fits=fits)

    def spectra(self) -> list[Tensor]:
        """All singular values of every delta, descending; one tensor a task."""
        return list(self.vectors.memo.get((self.name, "spectra", self.dtype), self._spectra))

    def _spectra(self) -> tuple[Tensor, ...]:
        if known := self._plain():
            plain, weights = known
            return tuple(s * abs(weight) for s, weight in zip(plain.spectra(), weights, strict=True))
        found = [svd.spectrum for svd in self.factors(self.default_rank())]
        if self.vectors.kind == "lora" or found[0].numel() == min(self.shape):
            return tuple(found)
        # The quick routes know the kept values alone (see ``truncated_svd``).
        tensors = self._stored("spectra", lambda: _numbered(on_all_threads(singular_values, self.deltas())))
        return tuple(tensors[str(t)] for t in range(len(self.tasks)))

    def cover_basis(self, rank: int) -> CoverBasis:
        """The shared basis of the experts' leading ``rank`` directions."""
        if (found := self._plain()) and min(found[1]) > 0:  # the same directions, none of which is turned or lost
            return found[0].cover_basis(rank)
        key = (self.name, "cover basis", rank, self.dtype)
        return self.vectors.memo.get(key, lambda: self._cover_basis(rank))

    def _cover_basis(self, rank: int) -> CoverBasis:
        return CoverBasis(**self._stored(f"cover basis {rank}", lambda: vars(cover_basis(self.factors(rank)))))


def _numbered(values: Sequence[Tensor]) -> dict[str, Tensor]:
    return {str(place): value for place, value in enumerate(values)}


def _as_tensors(factors: Sequence[SVD]) -> dict[str, Tensor]:
    return {f"{t}.{part}": value for t, svd in enumerate(factors) for part, value in vars(svd).items()}


def _padded(svd: SVD, rank: int) -> SVD:
    """An adapter of a smaller rank than the others gets components of singular value zero."""
    lacking = rank - svd.rank
    if lacking <= 0:
        return svd
    pad = torch.nn.functional.pad
    return SVD(pad(svd.U, (0, lacking)), pad(svd.s, (0, lacking)), pad(svd.V, (0, lacking)), svd.spectrum)


def over_parts(layers: Sequence[Layer], look: Callable[[Layer], Found]) -> Iterator[tuple[Layer, Iterator[Found]]]:
    """Every layer with what ``look`` finds in each of its parts, in order; found ahead on all threads where files give rows.

    Take all of one layer's before the next.
    """
    parts = [layer.parts() for layer in layers]
    every = [part for own in parts for part in own]
    in_rows = bool(layers) and layers[0].vectors.in_rows  # otherwise a part may be large: one at a time
    with closing(ahead_on_all_threads(look, every) if in_rows else (look(part) for part in every)) as found:
        for layer, own in zip(layers, parts, strict=True):
            yield layer, islice(found, len(own))


def layer_of(vectors: TaskVectors, name: str, dtype: torch.dtype = torch.float32) -> Layer:
    """The layer of one parameter, by its canonical name."""
    return Layer(vectors, vectors.parameters[name], dtype)
