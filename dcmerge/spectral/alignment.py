"""The shared cover basis of several deltas, the deltas in it, and measures of directional consistency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank, dense, total
from dcmerge.runtime.threads import on_all_threads
from dcmerge.spectral.linalg import NULL_TOLERANCE, SVD, polar_decomposition

#: Where the largest entries are searched, one of so many is looked at first, and so many times as many as wanted are sorted.
_SAMPLED, _AMPLE = 31, 1.5
#: By so much, as a share, a bound of an entry lies below a threshold before it counts as below: rounding is far smaller.
_SURELY = 1e-4


@dataclass(frozen=True)
class CoverBasis:
    """``U`` (m, k) and ``V`` (n, k), k = T·r, with orthonormal columns; task t owns the columns t·r .. (t+1)·r.

    Where experts share directions exactly, or have none, the columns are a partial isometry (see ``polar_factor``).
    ``left`` (T, k, r) = C_Uᵀ U_t and ``right`` (T, r, k) = V_tᵀ C_V are the experts' own directions in the basis: with them
    a change of the singular values touches nothing as large as the matrix.
    """

    U: Tensor
    V: Tensor
    left: Tensor
    right: Tensor

    @property
    def tasks(self) -> int:
        return self.left.shape[0]

    @property
    def block(self) -> int:
        return self.left.shape[2]

    def project_back(self, S: Tensor) -> LowRank:
        """C_U S C_Vᵀ of (k, k), as two factors."""
        return LowRank(self.U @ S, self.V.T)

    def project_blocks_back(self, blocks: Tensor) -> LowRank:
        """C_U S C_Vᵀ, as two factors, of an S that is zero outside its diagonal blocks (T, r, r); it goes to the shorter side."""
        if len(self.U) <= len(self.V):
            own_columns = self.U.split(self.block, dim=1)
            return LowRank(torch.cat([U @ S for U, S in zip(own_columns, blocks, strict=True)], dim=1), self.V.T)
        own_columns = self.V.split(self.block, dim=1)
        return LowRank(self.U, torch.cat([S @ V.T for V, S in zip(own_columns, blocks, strict=True)]))


def concatenated(factors: Sequence[SVD], side: str) -> Tensor:
    """[U_1 .. U_T] or [V_1 .. V_T], (m, T·r); directions whose singular value is zero are zero columns.

    The singular vectors of a zero singular value are arbitrary: they must not push other experts' directions aside.
    """
    columns = []
    for svd in factors:
        present = svd.s > NULL_TOLERANCE * max(svd.largest, torch.finfo(svd.s.dtype).tiny)
        vectors = getattr(svd, side)
        columns.append(vectors if present.all() else vectors * present)
    return torch.cat(columns, dim=1)


def cover_basis(factors: Sequence[SVD]) -> CoverBasis:
    """C_U = polar([U_1 .. U_T]), C_V = polar([V_1 .. V_T]) (DC-Merge, Eq. 9; TSV-M's decorrelation).

    All factors have one rank r with T·r <= min(m, n); raises ValueError otherwise.
    """
    if len({svd.rank for svd in factors}) != 1:
        raise ValueError("a cover basis needs factors of one rank")
    sides = [concatenated(factors, side) for side in ("U", "V")]
    (U, left), (V, right) = on_all_threads(polar_decomposition, sides, worth=sides[0].shape[1] >= 256)
    tasks = len(factors)
    left = left.unflatten(1, (tasks, -1)).transpose(0, 1)  # C_Uᵀ [U_1 .. U_T] is the polar decomposition's symmetric part
    return CoverBasis(U, V, left.contiguous(), right.unflatten(0, (tasks, -1)))


def aligned_deltas(basis: CoverBasis, smoothed: Tensor) -> Tensor:
    """M_t = C_Uᵀ U_t diag(s̄_t) V_tᵀ C_V, (T, k, k) with k = T·r (DC-Merge, Eq. 10), from the basis' experts' values (T, r)."""
    return (basis.left * smoothed[:, None, :]) @ basis.right


def keep_count(fraction: float, size: int) -> int:
    """Entries kept of a size x size aligned delta: max(1, floor(fraction · size²))."""
    return max(1, int(fraction * size * size))


def per_task(values: Tensor, D: Tensor) -> Tensor:
    """One value a task, (T,), so shaped and typed that it acts on the tasks of D (T, ...)."""
    return values.to(D.dtype).reshape(-1, *[1] * (D.dim() - 1))


def kept_entries(D: Tensor, thresholds: Tensor) -> Tensor:
    """Where each task's magnitudes reach its threshold (T,), ties included; bool (T, ...)."""
    return D.abs() >= per_task(thresholds, D)


def keep_thresholds(M: Tensor, count: int) -> Tensor:
    """The magnitude of each task's ``count``-th largest entry, (T,); infinite where none is kept."""
    sizes = M.abs().flatten(1)
    count = min(count, sizes.shape[1])
    if count == 0:
        return M.new_full((len(M),), math.inf)
    return M.new_tensor([_largest(own, count) for own in sizes.numpy()])


def _largest(sizes: np.ndarray, count: int) -> float:
    """The ``count``-th largest of (n,). A sample says what is about as large, and only what is larger is sorted."""
    wanted, sample = math.ceil(_AMPLE * count / _SAMPLED) + 1, sizes[::_SAMPLED]
    if wanted < len(sample):
        large = sizes[sizes >= np.partition(sample, -wanted)[-wanted]]
        sizes = large if len(large) >= count else sizes
    return float(np.partition(sizes, -count)[-count])


def own_kept_blocks(basis: CoverBasis, smoothed: Tensor, count: int) -> Tensor | None:
    """The kept entries of each M_t in its own diagonal block, (T, r, r), where it keeps none in another's; None otherwise.

    ``count`` entries of all k x k are kept. With eight tasks a quarter of M_t, a task's own rows and columns, nearly always
    holds them: of the rest only what could reach their count-th largest entry is computed (see ``_none_elsewhere``).
    """
    scaled = basis.left * smoothed[:, None, :]
    rows = _own(scaled, 1) @ basis.right  # (T, r, k)
    columns = scaled @ _own(basis.right, 2)  # (T, k, r)
    _own(columns, 1).zero_()  # they are in the rows already
    thresholds = keep_thresholds(torch.cat([rows.flatten(1), columns.flatten(1)], dim=1), count)
    if not _none_elsewhere(basis, scaled, smoothed, thresholds):
        return None
    blocks = _own(rows, 2)
    return blocks * kept_entries(blocks, thresholds)


def _none_elsewhere(basis: CoverBasis, scaled: Tensor, smoothed: Tensor, thresholds: Tensor) -> bool:
    """Whether every entry of each M_t beside its own rows and columns lies below the task's threshold.

    Entry (i, j) is at most ‖√s̄ L_i‖ ‖√s̄ R_j‖ (Cauchy-Schwarz; L = C_Uᵀ U_t, ``scaled`` = L s̄, R = V_tᵀ C_V). Where the largest
    such products reach a threshold, the entries of those rows and columns are computed.
    """
    lengths = (scaled * basis.left).sum(dim=2).sqrt(), (smoothed[:, :, None] * basis.right.square()).sum(dim=1).sqrt()
    for side in lengths:
        _own(side, 1).zero_()
    highest = [side.amax(dim=1) for side in lengths]
    below = (1 - _SURELY) * thresholds
    for t in (highest[0] * highest[1] >= below).nonzero().flatten().tolist():
        rows, columns = (side[t] * other[t] >= below[t] for side, other in zip(lengths, highest[::-1], strict=True))
        if not below[t] > 0 or (scaled[t][rows] @ basis.right[t][:, columns]).abs().max() >= below[t]:
            return False
    return True


def _own(M: Tensor, axis: int) -> Tensor:
    """Of (T, .., T·r, ..) each task's own r along an axis, as a view with the tasks first."""
    return M.unflatten(axis, (len(M), -1)).diagonal(dim1=0, dim2=axis).movedim(-1, 0)


def elected(D: Tensor, undecided: Tensor | float = 0.0, aggregate: str = "mean", weights: Tensor | None = None) -> Tensor:
    """TIES' disjoint mean (or "sum") of (T, ...): per entry over the tasks whose sign is that of their sum.

    Where the sum is 0, ``undecided`` is the sign; 0 elects nobody, and the result is 0 there. ``weights`` (T,), by which D was
    multiplied, make the mean a weighted one: it divides by the sum of their sizes instead of the number of tasks.
    """
    sign = dense(total(D.unbind())).sign_()
    sign = torch.where(sign == 0, undecided, sign)
    agrees = D * sign > 0
    found = dense(total((D * agrees).unbind()))
    if aggregate == "sum":
        return found
    if weights is None:
        return found / agrees.sum(dim=0).clamp_min(1)
    divisor = dense(total((per_task(weights.abs(), D) * agrees).unbind()))
    return found / divisor.where(divisor > 0, 1)


def diagonal_blocks(tasks: int, block: int) -> Tensor:
    """T blocks of r x r ones on the diagonal, bool (T·r, T·r) (DC-Merge, Eq. 11)."""
    owner = torch.arange(tasks * block) // max(block, 1)
    return owner[:, None] == owner[None, :]


def own_blocks(M: Tensor, tasks: int) -> Tensor:
    """The T diagonal blocks of (..., T·r, T·r) as a view, (..., T, r, r)."""
    r = M.shape[-1] // tasks
    return M.unflatten(-1, (tasks, r)).unflatten(-3, (tasks, r)).diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def block_energy(M: Tensor, tasks: int) -> Tensor:
    """Share of ‖M_t‖² in each block of the T x T grid, (T, T, T): task, block row, block column."""
    block = M.shape[-1] // tasks
    grid = (M.double() ** 2).reshape(M.shape[0], tasks, block, tasks, block).sum(dim=(2, 4))
    return grid / grid.sum(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def dirsim(a: SVD, b: SVD) -> float:
    """Directional similarity, (1/√(p q)) Σ_ij |⟨u_i, u_j⟩ ⟨v_i, v_j⟩| in [0, 1] (DC-Merge, Eq. 3; absolute values).

    p and q count the components with a non-zero singular value. 1 for the same components in any order; about
    2 r / (π d) for independent ones. Take both from the unsmoothed delta: equal singular values leave vectors arbitrary.
    """
    a, b = a.present(), b.present()
    if not a.rank or not b.rank:
        return 0.0
    return (((a.U.T @ b.U) * (a.V.T @ b.V)).abs().sum() / math.sqrt(a.rank * b.rank)).item()


def subspace_affinity(A: Tensor, B: Tensor) -> float:
    """‖AᵀB‖_F² / min(p, q) in [0, 1] for orthonormal columns A (m, p), B (m, q): 1 where one span holds the other."""
    smaller = min(A.shape[1], B.shape[1])
    return ((A.T @ B) ** 2).sum().item() / smaller if smaller else 0.0


def subspace_alignment_ratio(merged: SVD, delta: Tensor, size: float | None = None, error: float = 0.05) -> float:
    """‖Π_k D_t‖_F / ‖D_t‖_F in [0, 1], Π_k onto the merged matrix's leading left directions (Iso, arXiv 2502.04959, Eq. 4).

    k is the smallest number that rebuilds the merged matrix up to ``error`` of its norm: how much of an expert's change
    lies where the merge acts. 0 where one of them is zero. ``size`` is the merged matrix's norm; without it, that of the
    singular values that are known.
    """
    energy = merged.spectrum.double() ** 2
    whole = energy.sum().item() if size is None else size**2
    k = int((energy.cumsum(0) < (1 - error**2) * whole).sum()) + 1
    norm = delta.norm()
    return ((merged.U[:, :k].T @ delta).norm() / norm).item() if norm > 0 and whole > 0 else 0.0


def overlap(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Subspace affinity of every pair, (len(first), len(second)).

    Before whitening: overlap(U, U) of the experts' own subspaces. After: overlap(blocks of C_U, U), where a diagonal near 1
    and an off-diagonal near 0 mean that every expert kept its own directions.
    """
    return torch.tensor([[subspace_affinity(a, b) for b in second] for a in first])


def reconstruction_error(factors: SVD, smoothed: Tensor, M: Tensor, basis: CoverBasis) -> float:
    """‖C_U M C_Vᵀ − D̄‖_F / ‖D̄‖_F: 0 where the cover basis spans the expert's directions."""
    target = factors.dense(smoothed)
    difference = basis.U @ M @ basis.V.T - target
    return (difference.norm() / target.norm().clamp_min(1e-30)).item()


def chance_overlap(p: int, q: int, d: int) -> tuple[float, float]:
    """Mean and variance of ‖AᵀB‖_F² where A (d, p) and B (d, q) span subspaces that have nothing to do with each other.

    Hold B and turn A at random. With the projections P = AAᵀ and Q = BBᵀ the overlap is tr(PQ), and E P = (p/d) I as no direction
    is preferred, so E tr(PQ) = (p/d) tr Q = p q / d. The invariance of P under rotations fixes its second moments as well:
    Var tr(PQ) = 2 p q (d − p) (d − q) / (d² (d − 1) (d + 2)). For p = q = 1 these are the moments of a squared cosine,
    Beta(1/2, (d − 1)/2). Blind spot: directions that every network prefers (the mean of the inputs) count as agreement.
    """
    if d < 2:
        return float(p * q), 0.0
    return p * q / d, 2 * p * q * (d - p) * (d - q) / (d * d * (d - 1) * (d + 2))


def gram(deltas: Sequence[Tensor | LowRank]) -> Tensor:
    """⟨D_s, D_t⟩ of T deltas of one shape, (T, T) float64; of adapters by their factors, without a dense product."""
    factors = [delta for delta in deltas if isinstance(delta, LowRank)]
    if len(factors) == len(deltas):
        return torch.tensor([[a.inner(b) for b in factors] for a in factors], dtype=torch.float64)
    rows = torch.stack([dense(delta).double().flatten() for delta in deltas])
    return rows @ rows.T


def cosine(a: Tensor | LowRank, b: Tensor | LowRank) -> float:
    """⟨a, b⟩ / (‖a‖ ‖b‖) of two deltas, by their factors where both have them; 0 where one of them is zero."""
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        return a.inner(b) / max(math.sqrt(max(0.0, a.inner(a))) * math.sqrt(max(0.0, b.inner(b))), 1e-300)
    a, b = dense(a).double().flatten(), dense(b).double().flatten()
    return (a @ b / (a.norm() * b.norm()).clamp_min(1e-300)).item()
