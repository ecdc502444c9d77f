"""One adapted weight of an adapter's file: how its delta comes out of the tensors that are stored, always as two factors.

Three forms are read, each exactly: LoRA's product B A; LoHa's Hadamard product of two products, (A₁ B₁) ∘ (A₂ B₂), which is a
product of rank r² (rows of Khatri and Rao); and LoKr's Kronecker product W₁ ⊗ W₂, whose factors are the Kronecker products of
the factors. Convolutions are matrices, (m, n · kernel). Formulas: arXiv 2106.09685, 2108.06098, 2309.14859.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from dcmerge.checkpoints.base import TensorFile, TensorInfo
from dcmerge.checkpoints.low_rank import LowRank
from dcmerge.checkpoints.packed import Part

Infos = Mapping[str, TensorInfo]


@dataclass(frozen=True)
class Adapted:
    """An adapted weight with LoRA's two factors: its name in the model, its factors' names in the file, and its scale.

    ``module`` is what the library calls the adapted module (of an attention's output the attention), ``times`` how often PEFT
    adds the delta, which ``scale`` includes. ``saved_keys`` are the names under which a merged pair is written, ``alpha_key``
    that of its alpha where the dialect has one. ``magnitude`` names DoRA's vector of lengths.
    """

    weight: str
    factor_a: str
    factor_b: str
    scale: float
    transposed: bool
    module: str
    times: int = 1
    saved_keys: tuple[str, str] = ("", "")
    alpha_key: str = ""
    magnitude: str = ""

    def shape(self, infos: Infos) -> tuple[int, ...]:
        """Of the weight: (m, n), or (m, n, kernel...) of a convolution."""
        a, b = infos[self.factor_a].shape, infos[self.factor_b].shape
        return (a[1], b[0]) if self.transposed else (b[0], *a[1:])

    def dtype(self, infos: Infos) -> torch.dtype:
        a, b = infos[self.factor_a].dtype, infos[self.factor_b].dtype
        return a if a == b else torch.float32

    def rank(self, infos: Infos) -> int:
        return infos[self.factor_a].shape[0]

    def read(self, file: TensorFile) -> LowRank:
        """The delta, scale included in ``left``: half precision becomes float32, so that the scale rounds nothing."""
        a, b = (at_least_float32(file.read(key)) for key in (self.factor_a, self.factor_b))
        if self.transposed:
            return LowRank((a.T * self.scale).contiguous(), b.T.contiguous())
        return LowRank(b.flatten(1) * self.scale, a.flatten(1))


@dataclass(frozen=True)
class OfExpert(Adapted):
    """One expert's matrix, or the half of it that is its gate or up, of packed experts that PEFT adapts as one parameter.

    The factors of all E experts lie in one pair: A (E r, n), expert by expert, and B (m, r E), whose last axis counts the experts
    within each direction. ``turned``: the delta is (B A)ᵀ. ``part`` says where it lies in the packed parameter.
    """

    part: Part = Part("", 0, 0)
    experts: int = 1
    turned: bool = False

    def shape(self, infos: Infos) -> tuple[int, ...]:
        shape = list(self.expert_shape(infos))
        shape[self.part.axis] = self.part.count
        return tuple(shape)

    def expert_shape(self, infos: Infos) -> tuple[int, int]:
        """(m, n) of one expert's matrix in the packed parameter."""
        m, n = infos[self.factor_b].shape[0], infos[self.factor_a].shape[1]
        return (n, m) if self.turned else (m, n)

    def rank(self, infos: Infos) -> int:
        return infos[self.factor_a].shape[0] // self.experts

    def read(self, file: TensorFile) -> LowRank:
        expert, r = self.part.expert or 0, self.rank(file.infos)
        a = at_least_float32(file.read_rows(self.factor_a, expert * r, (expert + 1) * r))
        b = at_least_float32(file.read(self.factor_b)[:, expert :: self.experts].contiguous()) * self.scale
        left, right = (a.T.contiguous(), b.T.contiguous()) if self.turned else (b, a)
        own = self.part.index[-1]
        return LowRank(left, right[:, own].contiguous()) if self.part.axis else LowRank(left[own].contiguous(), right)


@dataclass(frozen=True)
class Product(Adapted):
    """A weight of LoHa or LoKr: ``first`` and ``second`` are the names of its two operands' tensors, in one or two parts.

    Of an operand in parts, the factors, or with ``core`` (Tucker's) those of a convolution.
    """

    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    core_first: str = ""
    core_second: str = ""
    kronecker: bool = False
    whole: tuple[int, ...] = ()

    def shape(self, infos: Infos) -> tuple[int, ...]:
        one, two = _operand_shape(infos, self.first, self.core_first), _operand_shape(infos, self.second, self.core_second)
        found = (one[0] * two[0], one[1] * two[1], *two[2:]) if self.kronecker else one
        # LoHa flattens a convolution's kernel: only the base tells it again.
        return self.whole or found

    def dtype(self, infos: Infos) -> torch.dtype:
        dtypes = {infos[key].dtype for key in (*self.first, *self.second)}
        return dtypes.pop() if len(dtypes) == 1 else torch.float32

    def rank(self, infos: Infos) -> int:
        m, *rest = self.shape(infos)
        return min(m, prod(rest), self._inner(infos))

    def _inner(self, infos: Infos) -> int:
        ranks = [
            min(
                _operand_shape(infos, part, core)[0],
                prod(_operand_shape(infos, part, core)[1:]),
                *_inner_sizes(infos, part, core),
            )
            for part, core in ((self.first, self.core_first), (self.second, self.core_second))
        ]
        return ranks[0] * ranks[1]

    def read(self, file: TensorFile) -> LowRank:
        one, two = _operand(file, self.first, self.core_first), _operand(file, self.second, self.core_second)
        if self.kronecker:
            if len(self.second) == 1 and two.ndim > 2 or self.core_second:
                first = one.reshape(*one.shape, *[1] * (two.ndim - 2))
                return _exact(torch.kron(first, two.contiguous()).flatten(1) * self.scale, self.rank(file.infos))
            return _exact(torch.kron(one, two.flatten(1)) * self.scale, self.rank(file.infos))
        return _exact((one * two).flatten(1) * self.scale, self.rank(file.infos))


def _operand_shape(infos: Infos, keys: tuple[str, ...], core: str) -> tuple[int, ...]:
    if len(keys) == 1:
        return infos[keys[0]].shape
    a, b = infos[keys[0]].shape, infos[keys[1]].shape
    return (a[1], b[1], *infos[core].shape[2:]) if core else (a[0], *b[1:])


def _inner_sizes(infos: Infos, keys: tuple[str, ...], core: str) -> tuple[int, ...]:
    if len(keys) == 1:
        return ()
    return (prod(infos[core].shape[1:]),) if core else (infos[keys[0]].shape[1],)


def _operand(file: TensorFile, keys: tuple[str, ...], core: str) -> Tensor:
    parts = [at_least_float32(file.read(key)) for key in keys]
    if len(parts) == 1:
        return parts[0]
    if core:
        return torch.einsum("ij...,ip,jr->pr...", at_least_float32(file.read(core)), parts[0], parts[1])
    return (parts[0] @ parts[1].flatten(1)).reshape(parts[0].shape[0], *parts[1].shape[1:])


def _exact(matrix: Tensor, rank: int) -> LowRank:
    """A matrix of at most this rank as two factors; where they would save nothing, itself and a unit matrix."""
    m, n = matrix.shape
    if rank >= min(m, n):
        return LowRank(matrix, torch.eye(n, dtype=matrix.dtype)) if n <= m else LowRank(torch.eye(m, dtype=matrix.dtype), matrix)
    U, s, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return LowRank((U[:, :rank] * s[:rank]).to(matrix.dtype), Vh[:rank].to(matrix.dtype))


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
