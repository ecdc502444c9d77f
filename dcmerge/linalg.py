"""Truncated SVD, polar factor and low-rank products: the only place with numerical tricks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
#: Raised whenever factors or bases change by more than rounding: what is cached on disk under another number is not read.
NUMERICS = 2
#: Singular values below this share of the largest are rounding of float32 files, not directions.
NULL_TOLERANCE = 1e-6
#: Above this share of the largest singular value, the Gram route in float64 gives vectors good to about 1e-8.
GRAM_TOLERANCE = 1e-4
_ORTHONORMAL_TOLERANCE = 1e-8
#: From this many columns on, a polar factor is tried in float32 first, which takes half the time. It is taken where the
#: smallest eigenvalue of the Gram matrix is above this share of the largest, and the columns come out as orthonormal as this.
_LARGE, _SINGLE_POLAR_TOLERANCE, _SINGLE_ORTHONORMAL = 100, 0.05, 1e-5


@dataclass(frozen=True)
class SVD:
    """``U diag(s) Vᵀ`` with ``U`` (m, r), ``s`` (r,), ``V`` (n, r), and ``spectrum``: every singular value, before truncation."""

    U: Tensor
    s: Tensor
    V: Tensor
    spectrum: Tensor

    @property
    def rank(self) -> int:
        return self.s.numel()

    def truncate(self, rank: int) -> SVD:
        """The leading ``rank`` components (views, nothing is copied)."""
        return SVD(self.U[:, :rank], self.s[:rank], self.V[:, :rank], self.spectrum)

    def present(self, size: float | None = None) -> SVD:
        """Without the components whose singular value is rounding, which leaves their vectors arbitrary.

        ``size`` is the norm of what the matrix was computed from; without it, its own largest singular value.
        """
        if size is None:
            size = self.spectrum.max().item() if self.spectrum.numel() else 0.0
        return self.truncate(int((self.s > NULL_TOLERANCE * max(size, 1e-30)).sum()))

    def dense(self, s: Tensor | None = None) -> Tensor:
        """``U diag(s) Vᵀ``, (m, n), with other singular values where ``s`` (r,) is given."""
        return (self.U * (self.s if s is None else s)) @ self.V.T


def truncated_svd(delta: Tensor | LowRank, rank: int | None = None, tolerance: float = 0.0) -> SVD:
    """The leading ``rank`` singular triplets (all min(m, n) of a dense delta, all r of a low-rank one, without ``rank``).

    Signs are fixed: the entry of largest magnitude of every left vector is positive, so pictures do not flip.
    A dense delta goes through the eigenvectors of its smaller Gram matrix in float64, which keeps every singular value
    above 1e-8 of the largest (better than a float32 SVD); where a kept one is below ``GRAM_TOLERANCE`` of the largest,
    its vectors come from a full float64 SVD instead. (A float32 Gram matrix took three quarters of the time and made the merge
    ten times less exact, about 1e-4.) A low-rank delta goes through the QR of its factors.

    A ``tolerance`` above 0 allows a randomised SVD where it pays: it is taken only if ‖D v_i − s_i u_i‖ <= tolerance · s_i
    for every kept i, and its ``spectrum`` holds the kept values alone.
    """
    if isinstance(delta, LowRank):
        svd = _svd_of_factors(delta)
    elif tolerance and rank and 4 * rank <= min(delta.shape) and (found := _randomised_svd(delta, rank, tolerance)):
        return found
    else:
        svd = _svd_of_dense(delta, min(delta.shape) if rank is None else min(rank, *delta.shape))
    return svd if rank is None else svd.truncate(rank)


def singular_values(delta: Tensor | LowRank) -> Tensor:
    """All singular values, descending, (min(m, n),) of a dense delta, (r,) of a low-rank one."""
    return truncated_svd(delta, 0).spectrum if not isinstance(delta, LowRank) else truncated_svd(delta).spectrum


def _svd_of_dense(delta: Tensor, rank: int) -> SVD:
    wide = delta.shape[0] <= delta.shape[1]
    D = (delta if wide else delta.T).to(compute_device()).double()  # (small, large)
    if not rank:
        spectrum = torch.linalg.eigvalsh(D @ D.T).flip(0).clamp_min(0).sqrt()
        return _with_fixed_signs(delta.new_zeros(delta.shape[0], 0), delta.new_zeros(delta.shape[1], 0), spectrum, 0, delta.dtype)
    eigenvalues, vectors = torch.linalg.eigh(D @ D.T)
    spectrum = eigenvalues.flip(0).clamp_min(0).sqrt()
    if spectrum[rank - 1] <= GRAM_TOLERANCE * spectrum[0]:
        U, spectrum, Vt = torch.linalg.svd(D, full_matrices=False)
        U, V = U[:, :rank], Vt[:rank].T
    else:
        U = vectors.flip(1)[:, :rank]
        V = (D.T @ U) / spectrum[:rank]
    return _with_fixed_signs(*((U, V) if wide else (V, U)), spectrum, rank, delta.dtype)


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
    return _with_fixed_signs(U, V, s, rank, delta.dtype)


def _svd_of_factors(delta: LowRank) -> SVD:
    """SVD of ``left @ right`` from the thin QR of both: O((m + n) r²) instead of O(m n min(m, n))."""
    Q_left, R_left = torch.linalg.qr(delta.left.double())
    Q_right, R_right = torch.linalg.qr(delta.right.double().T)
    U, s, Vt = torch.linalg.svd(R_left @ R_right.T, full_matrices=False)
    return _with_fixed_signs(Q_left @ U, Q_right @ Vt.T, s, s.numel(), delta.left.dtype)


def _with_fixed_signs(U: Tensor, V: Tensor, spectrum: Tensor, rank: int, dtype: torch.dtype) -> SVD:
    """On the CPU, in float32 or float64."""
    U, V, spectrum = U.cpu(), V.cpu(), spectrum.cpu()
    if rank:
        signs = U.gather(0, U.abs().argmax(dim=0, keepdim=True)).sign()
        signs[signs == 0] = 1
        U, V = U * signs, V * signs
    dtype = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    return SVD(U.to(dtype).contiguous(), spectrum[:rank].to(dtype), V.to(dtype).contiguous(), spectrum.to(dtype))


def compute_device() -> torch.device:
    """Where decompositions run: a CUDA device where there is one, unless ``DCMERGE_DEVICE`` says "cpu".

    Their results are on the CPU. Raises InputError for another name, and for "cuda" where there is none.
    """
    named, there = os.environ.get("DCMERGE_DEVICE", ""), torch.cuda.is_available()
    if named not in ("", "cpu", "cuda") or (named == "cuda" and not there):
        raise InputError(f"DCMERGE_DEVICE: expected {'cpu or cuda' if there else 'cpu'}, got {named!r}")
    return torch.device(named or ("cuda" if there else "cpu"))


def on_all_threads(function: Callable[[Item], Result], items: Sequence[Item], worth: bool = True) -> list[Result]:
    """``function`` of every item, one thread each, as many at once as torch may use.

    Eigenvectors scale badly over threads, and two matrices at once well. With one thread, or where the work is too small to be
    ``worth`` it, a plain loop.
    """
    threads = torch.get_num_threads() if compute_device().type == "cpu" else 1
    if threads == 1 or len(items) < 2 or not worth:
        return [function(item) for item in items]
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, len(items)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)


def polar_factor(C: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns, ``argmin ‖Q − C‖_F = C (CᵀC)^(−1/2)``; (m, k) with k <= m.

    Löwdin's symmetric orthogonalisation, called whitening in DC-Merge (Eq. 9) and TSV-M. Computed from the Gram matrix in
    float64 (in float32 where k is large and the columns far from dependent), checked for orthonormality, from the SVD where the
    check fails. Where C is rank-deficient (two equal experts, an expert without change) an orthonormal completion would be
    arbitrary and bring in directions that no expert has: then the factor is the unique partial isometry on C's range, and equal
    columns share their direction. Raises ValueError if k > m.
    """
    m, k = C.shape
    if k > m:
        raise ValueError(f"a polar factor needs at least as many rows as columns, got {m} x {k}")
    if k == 0:
        return C.clone()
    X = C.to(compute_device())
    if k >= _LARGE and X.dtype == torch.float32 and m >= 2 * k:  # as many columns as rows are hardly ever independent enough
        W = _inverse_root(X.T @ X, _SINGLE_POLAR_TOLERANCE, _SINGLE_ORTHONORMAL)
        if W is not None:
            return (X @ W).cpu()
    X = X.double()
    W = _inverse_root(X.T @ X, GRAM_TOLERANCE**2, _ORTHONORMAL_TOLERANCE)
    return (_polar_by_svd(X) if W is None else X @ W).to(C.dtype).cpu()


def _inverse_root(gram: Tensor, smallest: float, tolerance: float) -> Tensor | None:
    """G^(−1/2) of a positive definite (k, k) matrix; None with an eigenvalue below ``smallest`` of the largest, or inexact."""
    eigenvalues, Q = torch.linalg.eigh(gram)
    if not eigenvalues[0] > max(0.0, smallest * eigenvalues[-1].item()):
        return None
    W = (Q * eigenvalues.rsqrt()) @ Q.T
    error = (W @ gram @ W - torch.eye(len(gram), dtype=W.dtype, device=W.device)).abs().max()
    return W if error < tolerance else None


def _polar_by_svd(X: Tensor) -> Tensor:
    U, s, Vt = torch.linalg.svd(X, full_matrices=False)
    present = s > NULL_TOLERANCE * s.max().clamp_min(torch.finfo(X.dtype).tiny)
    return U[:, present] @ Vt[present]


def frobenius_norm(delta: Tensor | LowRank) -> float:
    """‖D‖_F; of factors by tr((LᵀL)(RRᵀ)), without the dense product."""
    if isinstance(delta, LowRank):
        left, right = delta.left.double(), delta.right.double()
        return ((left.T @ left) * (right @ right.T)).sum().clamp_min(0).sqrt().item()
    return torch.linalg.vector_norm(delta.double()).item()
