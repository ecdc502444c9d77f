"""Ways to the leading singular triplets of a delta: what each takes, and how exact it is beside a float64 SVD."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks import models
from benchmarks.measuring import Row, Timer
from dcmerge.spectral.linalg import truncated_svd

#: U (m, r), s (r,) and V (n, r).
Triplets = tuple[Tensor, Tensor, Tensor]
#: What a certificate would have to show for a route to be taken in place of the exact one.
WANTED = 1e-5


def routes(runs: int) -> Iterator[Row]:
    """Seconds of every route; its error is the largest residual ‖D v − s u‖ / s, in float64, of a kept triplet."""
    for shape in ((768, 768), (768, 3072), (2304, 768)):
        D = models.delta(shape, torch.Generator().manual_seed(1))
        r, timer = min(shape) // models.TASKS, Timer(runs)
        candidates = _candidates(D, r)
        found = timer.alternate(**{name: route for name, (_, route) in candidates.items()})
        exact = torch.linalg.svdvals(D.double())[:r]
        for name, (what, _) in candidates.items():
            residual, value = _errors(D.double(), found[name], exact)
            said = f"{r} of {shape}: {what}, against a full float32 SVD"
            remark = f"singular values to {value:.0e}"
            yield Row("svd", said, timer.median("full"), timer.median(name), residual, f"residual < {WANTED:.0e}", runs, remark)


def _candidates(D: Tensor, r: int) -> dict[str, tuple[str, Callable[[], Triplets]]]:
    return {
        "full": ("full float32 SVD", lambda: _leading(torch.linalg.svd(D, full_matrices=False), r)),
        "ours": ("float32 start, float64 finish (in use)", lambda: _ours(D, r)),
        "gram32": ("Gram matrix in float32", lambda: _gram(D, r)),
        **{f"power{q}": (f"randomised, {q} power steps", lambda q=q: _randomised(D, r, q)) for q in (2, 8, 24)},
        **{f"krylov{q}": (f"block Krylov of {q + 1} blocks", lambda q=q: _krylov(D, r, q)) for q in (2, 4, 6)},
    }


def _errors(D: Tensor, found: Triplets, exact: Tensor) -> tuple[float, float]:
    """The largest residual of either side and the worst singular value, both relative."""
    U, s, V = (part.double() for part in found)
    residuals = torch.maximum((D @ V - U * s).norm(dim=0), (D.T @ U - V * s).norm(dim=0))
    return (residuals / exact).max().item(), ((s - exact).abs() / exact).max().item()


def _ours(D: Tensor, r: int) -> Triplets:
    svd = truncated_svd(D, r)
    return svd.U, svd.s, svd.V


def _leading(svd: tuple[Tensor, Tensor, Tensor], r: int) -> Triplets:
    U, s, Vt = svd
    return U[:, :r], s[:r], Vt[:r].T


def _gram(D: Tensor, r: int) -> Triplets:
    wide = D.shape[0] <= D.shape[1]
    A = D if wide else D.T
    values, U = torch.linalg.eigh(A @ A.T)
    s, U = values.flip(0)[:r].clamp_min(0).sqrt(), U.flip(1)[:, :r]
    V = (A.T @ U) / s
    return (U, s, V) if wide else (V, s, U)


def _randomised(D: Tensor, r: int, steps: int) -> Triplets:
    """Halko, Martinsson & Tropp 2011, Alg. 4.4 and 5.1, with 32 further vectors."""
    Q = torch.linalg.qr(D @ _start(D, r + 32)).Q
    for _ in range(steps):
        Q = torch.linalg.qr(D @ torch.linalg.qr(D.T @ Q).Q).Q
    return _within(D, Q, r)


def _krylov(D: Tensor, r: int, steps: int) -> Triplets:
    """Musco & Musco 2015, Alg. 2: the best in the span of [D Ω, (D Dᵀ) D Ω, …], each block made orthonormal on the way."""
    blocks = [torch.linalg.qr(D @ _start(D, r + 16)).Q]
    for _ in range(steps):
        blocks.append(torch.linalg.qr(D @ (D.T @ blocks[-1])).Q)
    return _within(D, torch.linalg.qr(torch.cat(blocks, dim=1)).Q, r)


def _start(D: Tensor, columns: int) -> Tensor:
    return torch.randn(D.shape[1], columns, generator=torch.Generator().manual_seed(0))


def _within(D: Tensor, Q: Tensor, r: int) -> Triplets:
    U, s, Vt = torch.linalg.svd(Q.T @ D, full_matrices=False)
    return _leading((Q @ U, s, Vt), r)
