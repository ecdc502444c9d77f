"""Truncated SVD, polar factor and low-rank products: the only place with numerical tricks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.runtime.threads import compute_device, on_all_threads
from dcmerge.spectral.eigen import gram_matrix, leading_eigenpairs

#: Raised whenever factors or bases change by more than rounding: what is cached on disk under another number is not read.
NUMERICS = 3
#: Singular values below this share of the largest are rounding of float32 files, not directions.
NULL_TOLERANCE = 1e-6
#: Above this share of the largest singular value, the Gram route in float64 gives vectors good to about 1e-8.
GRAM_TOLERANCE = 1e-4
_ORTHONORMAL_TOLERANCE = 1e-8
#: From this size on, a few leading vectors are worth the float32 start (``eigen.leading_eigenpairs``), even where a picture asks
#: for the whole spectrum later: at 512 it takes half the time, at 288 three quarters, and the spectrum one half.
_LARGE_GRAM = 512
#: A sum of squares in float32 counts where it has at most so many terms and lies between these.
_QUICKLY_SUMMED, _SMALLEST_QUICK, _LARGEST_QUICK = 1 << 20, 1e-25, 1e35
#: Directions whose eigenvalue is below this share of the largest are not inverted: nothing reaches them.
_UNSEEN = 1e-10
#: From this many columns on, a polar factor is tried in float32 first, which takes half the time. It is taken where the
#: smallest eigenvalue of the Gram matrix is above this share of the largest, and the columns come out as orthonormal as this.
_LARGE, _SINGLE_POLAR_TOLERANCE, _SINGLE_ORTHONORMAL = 100, 0.05, 1e-5


@dataclass(frozen=True)
class SVD:
    """``U diag(s) Vᵀ`` with ``U`` (m, r), ``s`` (r,), ``V`` (n, r), and ``spectrum``: every singular value that is known.

    Those are all of them, or the kept ones alone where a route was taken that saves the time for the others.
    """

    U: Tensor
    s: Tensor
    V: Tensor
    spectrum: Tensor

    @property
    def rank(self) -> int:
        return self.s.numel()

    @property
    def largest(self) -> float:
        """The largest singular value; 0 of a matrix of rank 0."""
        return self.spectrum.max().item() if self.spectrum.numel() else 0.0

    def truncate(self, rank: int) -> SVD:
        """The leading ``rank`` components (views, nothing is copied)."""
        return SVD(self.U[:, :rank], self.s[:rank], self.V[:, :rank], self.spectrum)

    def scaled(self, factor: float) -> SVD:
        """That of the matrix times a number; a negative one turns ``V``, so that the signs of ``U`` stay as they are fixed."""
        size = abs(factor)
        return SVD(self.U, self.s * size, -self.V if factor < 0 else self.V, self.spectrum * size)

    def present(self, size: float | None = None) -> SVD:
        """Without the components whose singular value is rounding, which leaves their vectors arbitrary.

        ``size`` is the norm of what the matrix was computed from; without it, its own largest singular value.
        """
        size = self.largest if size is None else size
        return self.truncate(int((self.s > NULL_TOLERANCE * max(size, 1e-30)).sum()))

    def dense(self, s: Tensor | None = None) -> Tensor:
        """``U diag(s) Vᵀ``, (m, n), with other singular values where ``s`` (r,) is given."""
        return (self.U * (self.s if s is None else s)) @ self.V.T


def truncated_svd(delta: Tensor | LowRank, rank: int | None = None, tolerance: float = 0.0) -> SVD:
    """The leading ``rank`` singular triplets (all min(m, n) of a dense delta, all r of a low-rank one, without ``rank``).

    Signs are fixed: the entry of largest magnitude of every left vector is positive, so pictures do not flip.
    A dense delta goes through the eigenvectors of its smaller Gram matrix in float64, which keeps every singular value
    above 1e-8 of the largest (better than a float32 SVD); where a kept one is below ``GRAM_TOLERANCE`` of the largest,
    its vectors come from a full float64 SVD instead. Where few components of a large matrix are wanted, eigenvectors in float32
    are the start and float64 makes them exact (1.5 to 1.9 times as fast); then ``spectrum`` holds the kept values alone.
    A low-rank delta goes through the Gram matrices of its factors.

    A ``tolerance`` above 0 allows a randomised SVD where it pays: it is taken only if ‖D v_i − s_i u_i‖ <= tolerance · s_i
    for every kept i, and its ``spectrum`` holds the kept values alone.
    """
    if isinstance(delta, LowRank):
        (svd,) = _svds_of_factors([delta])
    elif tolerance and rank and 4 * rank <= min(delta.shape) and (found := _randomised_svd(delta, rank, tolerance)):
        return found
    else:
        svd = _svd_of_dense(delta, min(delta.shape) if rank is None else min(rank, *delta.shape))
    return svd if rank is None else svd.truncate(rank)


def truncated_svds(deltas: Sequence[Tensor | LowRank], rank: int, tolerance: float = 0.0) -> list[SVD]:
    """``truncated_svd`` of deltas of one shape: dense ones two at a time where it pays, adapters of one rank in one batch."""
    low = [delta for delta in deltas if isinstance(delta, LowRank)]
    if len(low) == len(deltas) and len({delta.rank for delta in low}) == 1:
        return [svd.truncate(rank) for svd in _svds_of_factors(low)]
    decomposed = partial(truncated_svd, rank=rank, tolerance=tolerance)
    return on_all_threads(decomposed, deltas, worth=not low and min(deltas[0].shape) >= 128)


def singular_values(delta: Tensor | LowRank) -> Tensor:
    """All singular values, descending, (min(m, n),) of a dense delta, (r,) of a low-rank one."""
    return truncated_svd(delta, 0).spectrum if not isinstance(delta, LowRank) else truncated_svd(delta).spectrum


def _svd_of_dense(delta: Tensor, rank: int) -> SVD:
    wide = delta.shape[0] <= delta.shape[1]
    D = (delta if wide else delta.T).to(compute_device())  # (small, large)
    G = gram_matrix(D)
    if not rank:
        spectrum = torch.linalg.eigvalsh(G).flip(0).clamp_min(0).sqrt()
        return _on_cpu(D.new_zeros(delta.shape[0], 0), D.new_zeros(delta.shape[1], 0), spectrum, delta.dtype)
    U, V, spectrum = _few_leading(D, G, rank) or _all_components(D.double(), G, rank)
    return _on_cpu(*((U, V) if wide else (V, U)), spectrum, delta.dtype)


def _few_leading(D: Tensor, G: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Leading U, V and s of a large float32 matrix; None where it is not one, or they are not exact enough."""
    if len(G) < _LARGE_GRAM or D.dtype == torch.float64 or (found := leading_eigenpairs(G, rank)) is None:
        return None
    s, U = found[0].sqrt(), found[1]
    return U, (D.float().T @ U.float()) / s, s


def _all_components(D: Tensor, G: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Leading U and V, and the whole spectrum, of a float64 matrix."""
    eigenvalues, vectors = torch.linalg.eigh(G)
    spectrum = eigenvalues.flip(0).clamp_min(0).sqrt()
    if spectrum[rank - 1] <= GRAM_TOLERANCE * spectrum[0]:
        U, spectrum, Vt = torch.linalg.svd(D, full_matrices=False)
        return U[:, :rank], Vt[:rank].T, spectrum
    U = vectors.flip(1)[:, :rank]
    return U, (D.T @ U) / spectrum[:rank], spectrum


def _randomised_svd(delta: Tensor, rank: int, tolerance: float, oversample: int = 16, iterations: int = 4) -> SVD | None:
    """Range finder with power iterations (Halko, Martinsson & Tropp 2011, Alg. 4.4 and 5.1); None if it is not good enough."""
    D = delta.to(compute_device())
    start = torch.randn(D.shape[1], rank + oversample, generator=torch.Generator().manual_seed(0), dtype=D.dtype)
    Q = torch.linalg.qr(D @ start.to(D.device)).Q
    for _ in range(iterations):
        Q = torch.linalg.qr(D @ torch.linalg.qr(D.T @ Q).Q).Q
    U, s, Vt = torch.linalg.svd(Q.T @ D, full_matrices=False)
    U, s, V = (Q @ U)[:, :rank], s[:rank], Vt[:rank].T
    if ((D @ V - U * s).norm(dim=0) > tolerance * s).any():
        return None
    return _on_cpu(U, V, s, delta.dtype)


def _svds_of_factors(deltas: Sequence[LowRank]) -> list[SVD]:
    """SVD of every ``left @ right``, (m, n) and r the same for all, from r x r matrices: O((m + n) r²) each."""
    left = torch.stack([delta.left for delta in deltas])
    right = torch.stack([delta.right for delta in deltas])
    if not left.shape[2]:
        return [SVD(delta.left, left.new_zeros(0), delta.right.T, left.new_zeros(0)) for delta in deltas]
    (W_left, R_left), (W_right, R_right) = _orthogonaliser(left.double()), _orthogonaliser(right.double().mT)
    U, s, Vt = torch.linalg.svd(R_left @ R_right.mT, full_matrices=False)
    U, s, V = (value.to(_result_dtype(left.dtype)) for value in (W_left(U), s, W_right(Vt.mT)))
    U, V = _with_fixed_signs(U, V)
    return [SVD(*parts) for parts in zip(U, s, V, s, strict=True)]


def _orthogonaliser(X: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """X = Q R of (T, m, r) with orthonormal Q, as Y -> Q Y and R: by the Gram matrices where no columns are near dependent."""
    eigenvalues, E = torch.linalg.eigh(X.mT @ X)
    if X.shape[1] >= X.shape[2] and (eigenvalues[:, 0] > GRAM_TOLERANCE**2 * eigenvalues[:, -1]).all():
        root = eigenvalues.sqrt()
        return lambda Y: X @ (E / root[:, None, :] @ Y), root[:, :, None] * E.mT
    Q, R = torch.linalg.qr(X)
    return lambda Y: Q @ Y, R


def _on_cpu(U: Tensor, V: Tensor, spectrum: Tensor, dtype: torch.dtype) -> SVD:
    U, V, spectrum = (value.to("cpu", _result_dtype(dtype)) for value in (U, V, spectrum))
    if U.shape[1]:
        U, V = _with_fixed_signs(U, V)
    return SVD(U.contiguous(), spectrum[: U.shape[1]], V.contiguous(), spectrum)


def _with_fixed_signs(U: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """The same vectors (..., m, r) and (..., n, r), the entry of largest magnitude of every left one positive."""
    lowest, highest = U.aminmax(dim=-2, keepdim=True)
    signs = torch.where(highest >= -lowest, 1, -1).to(U.dtype)
    return U * signs, V * signs


def _result_dtype(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def polar_factor(C: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns, ``argmin ‖Q − C‖_F = C (CᵀC)^(−1/2)``; (m, k) with k <= m.

    Löwdin's symmetric orthogonalisation, called whitening in DC-Merge (Eq. 9) and TSV-M. Raises ValueError if k > m.
    """
    return polar_decomposition(C)[0]


def polar_decomposition(C: Tensor) -> tuple[Tensor, Tensor]:
    """C = Q H: the polar factor Q (m, k) and H = (CᵀC)^(1/2) = QᵀC, (k, k); k <= m.

    Computed from the Gram matrix in float64 (in float32 where k is large and the columns far from dependent), checked for
    orthonormality, from the SVD where the check fails. Where C is rank-deficient (two equal experts, an expert without change)
    an orthonormal completion would be arbitrary and bring in directions that no expert has: then Q is the unique partial
    isometry on C's range, and equal columns share their direction. Raises ValueError if k > m.
    """
    m, k = C.shape
    if k > m:
        raise ValueError(f"a polar factor needs at least as many rows as columns, got {m} x {k}")
    if k == 0:
        return C.clone(), C.new_zeros(0, 0)
    X = C.to(compute_device())
    roots = None
    if k >= _LARGE and X.dtype == torch.float32 and m >= 2 * k:  # as many columns as rows are hardly ever independent enough
        roots = _roots(X.T @ X, _SINGLE_POLAR_TOLERANCE, _SINGLE_ORTHONORMAL)
    if roots is None:
        X = X.double()
        roots = _roots(gram_matrix(X.T), GRAM_TOLERANCE**2, _ORTHONORMAL_TOLERANCE)
    Q, H = _polar_by_svd(X) if roots is None else (X @ roots[0], roots[1])
    return Q.to(C.dtype).cpu(), H.to(C.dtype).cpu()


def _roots(G: Tensor, smallest: float, tolerance: float) -> tuple[Tensor, Tensor] | None:
    """G^(−1/2), G^(1/2) of a positive definite (k, k); None with an eigenvalue below ``smallest`` of the largest, or inexact."""
    eigenvalues, E = torch.linalg.eigh(G)
    if not eigenvalues[0] > max(0.0, smallest * eigenvalues[-1].item()):
        return None
    W = (E * eigenvalues.rsqrt()) @ E.T
    H = W @ G
    error = (H @ W - torch.eye(len(G), dtype=W.dtype, device=W.device)).abs().max()
    return (W, H) if error < tolerance else None


def _polar_by_svd(X: Tensor) -> tuple[Tensor, Tensor]:
    U, s, Vt = torch.linalg.svd(X, full_matrices=False)
    present = s > NULL_TOLERANCE * s.max().clamp_min(torch.finfo(X.dtype).tiny)
    return U[:, present] @ Vt[present], (Vt.T * s) @ Vt


def square_of(value: Tensor) -> float:
    """Σ x²: by products in float32, good to 1e-6, where it lies well within their range, else in float64."""
    flat = value if value.ndim == 1 else value.reshape(-1)
    if flat.dtype == torch.float32 and flat.numel() <= _QUICKLY_SUMMED:
        quick = torch.dot(flat, flat).item()
        if _SMALLEST_QUICK < quick < _LARGEST_QUICK:
            return quick
    flat = flat.double()
    return torch.dot(flat, flat).item()


def frobenius_norm(delta: Tensor | LowRank) -> float:
    """‖D‖_F; of factors by tr((LᵀL)(RRᵀ)), without the dense product."""
    if isinstance(delta, LowRank):
        return math.sqrt(max(0.0, delta.inner(delta)))
    return torch.linalg.vector_norm(delta, dtype=torch.float64).item()


def answered(B: Tensor, G: Tensor, cutoff: float = _UNSEEN) -> Tensor:
    """B G⁺ (m, d) of a symmetric positive semidefinite G (d, d): the least X with X G = B, where the inputs reach.

    The pseudo-inverse by eigendecomposition; eigenvalues up to ``cutoff`` times the largest count as zero.
    """
    eigenvalues, Q = torch.linalg.eigh(G)
    seen = eigenvalues > cutoff * eigenvalues[-1].clamp_min(torch.finfo(G.dtype).tiny)
    return (B @ Q[:, seen] / eigenvalues[seen]) @ Q[:, seen].T
