"""Leading eigenpairs of a Gram matrix: eigenvectors in float32, made exact in float64."""

from __future__ import annotations

import torch
from torch import Tensor

#: Rows of a Gram matrix computed at once; only blocks on and below the diagonal are.
_BLOCK = 192
#: Further vectors beside the wanted ones, so that the wanted ones lie well apart from what is left out.
_BESIDE = 16
#: Float32 eigenvectors are a good start only for eigenvalues above this share of the largest.
_SMALLEST = 1e-4
#: ‖G x − λ x‖ of a pair that counts as exact, as a share of the largest eigenvalue; float32 alone reaches about 1e-7.
_RESIDUAL = 1e-9
_STEPS = 2


def gram_matrix(D: Tensor) -> Tensor:
    """D Dᵀ in float64 of (n, large) in any dtype, (n, n); half of it is computed and mirrored."""
    n = len(D)
    X = D.double()
    G = X.new_empty(n, n)
    for start in range(0, n, _BLOCK):
        end = start + _BLOCK
        below = X[start:] @ X[start:end].T
        G[start:, start:end], G[start:end, start:] = below, below.T
    return G


def leading_eigenpairs(G: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """The ``count`` largest eigenvalues (count,), descending, and their vectors (n, count) of a symmetric float64 (n, n).

    Float32 eigenvectors take half the time, but neighbours mix where a gap is small: errors of 10 % were seen. One step of
    first-order perturbation theory, v_i += Σ_j v_j ⟨v_j, G v_i − λ_i v_i⟩ / (λ_i − λ_j) over the vectors j that are not wanted,
    and a Rayleigh-Ritz step within the wanted ones, both on residuals in float64, make them exact (as in Ogita & Aishima 2018,
    restricted to the leading vectors). None where the residuals say otherwise, the eigenvalues are too small to start from, or
    ``count`` is too large a part of n to be worth it.
    """
    inside = count + _BESIDE
    if 2 * inside > len(G):
        return None
    values, V = torch.linalg.eigh(G.float())
    values, V = values.flip(0), V.flip(1)
    if not values[inside - 1] > _SMALLEST * values[0]:
        return None
    X, outside, others = V[:, :inside].double(), V[:, inside:], values[inside:, None]
    GX = G @ X
    for _ in range(_STEPS):
        ritz = (X * GX).sum(dim=0) / (X * X).sum(dim=0)
        gaps = ritz.float() - others
        step = outside.T @ (GX - X * ritz).float()
        step /= gaps.masked_fill(gaps <= 1e-6 * values[0], torch.inf)
        X, GX, ritz = _rayleigh_ritz(G, X + (outside @ step).double())
        residual = (GX - X * ritz)[:, :count].norm(dim=0).max()
        if residual <= _RESIDUAL * ritz[0]:
            return ritz[:count], X[:, :count]
    return None


def _rayleigh_ritz(G: Tensor, X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best eigenpairs within the span of X (n, p): vectors, G times them, values, descending."""
    GX = G @ X
    inverse_root = torch.linalg.inv(torch.linalg.cholesky(X.T @ X)).T  # X · inverse_root has orthonormal columns
    within = inverse_root.T @ (X.T @ GX) @ inverse_root
    ritz, Q = torch.linalg.eigh((within + within.T) / 2)
    turn = inverse_root @ Q.flip(1)
    return X @ turn, GX @ turn, ritz.flip(0)
