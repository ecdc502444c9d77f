"""DC-Merge as one writes it down from the formulas: one full SVD each, dense products, everything in memory, float32.

This is what the fast path is measured against and must agree with; it shares no code with the library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

KEEP = 1e-3


def smoothed(s: Tensor, rho: float | None) -> Tensor:
    """Linear smoothing with ratio min(ρ, s_1/s_r), the sum kept; None leaves the values as they are."""
    if rho is None:
        return s
    weights = torch.linspace(min(rho, float(s[0] / s[-1])), 1, len(s))
    return s.sum() * weights / weights.sum()


def whitened(C: Tensor) -> Tensor:
    """The polar factor U Vᵀ of C's full SVD."""
    U, _, Vt = torch.linalg.svd(C, full_matrices=False)
    return U @ Vt


def dc_merge(deltas: Sequence[Tensor], rank: int, rho: float | None, padded: bool) -> Tensor:
    """C_U (TIES(M_1..M_T) ∘ blocks) C_Vᵀ of one matrix; ``padded`` counts the kept share on min(m, n) columns."""
    C_U, S, C_V = in_the_basis(deltas, rank, rho, padded)
    return C_U @ S @ C_V.T


def in_the_basis(deltas: Sequence[Tensor], rank: int, rho: float | None, padded: bool) -> tuple[Tensor, Tensor, Tensor]:
    """C_U (m, k), TIES(M_1..M_T) ∘ blocks (k, k) and C_V (n, k) of one matrix."""
    factors = []
    for D in deltas:
        U, s, Vt = torch.linalg.svd(D, full_matrices=False)
        factors.append((U[:, :rank], smoothed(s[:rank], rho), Vt[:rank]))
    C_U, C_V = whitened(torch.cat([U for U, _, _ in factors], 1)), whitened(torch.cat([Vt.T for _, _, Vt in factors], 1))
    M = torch.stack([C_U.T @ ((U * s) @ Vt) @ C_V for U, s, Vt in factors])
    k = M.shape[-1]
    count = max(1, int(KEEP * (min(deltas[0].shape) if padded else k) ** 2))
    threshold = M.abs().flatten(1).topk(count, 1).values[:, -1]
    M = M * (M.abs() >= threshold[:, None, None])
    sign = M.sum(0).sign()
    agrees = (M.sign() == sign) & (sign != 0)
    merged = (M * agrees).sum(0) / agrees.sum(0).clamp_min(1)
    mask = torch.block_diag(*[torch.ones(rank, rank)] * len(deltas))
    return C_U, merged * mask, C_V


def tsv_m(deltas: Sequence[Tensor], rank: int) -> Tensor:
    """polar[U_1..U_T] diag(s) polar[V_1..V_T]ᵀ of one matrix."""
    factors = [torch.linalg.svd(D, full_matrices=False) for D in deltas]
    C_U = whitened(torch.cat([U[:, :rank] for U, _, _ in factors], 1))
    C_V = whitened(torch.cat([Vt[:rank].T for _, _, Vt in factors], 1))
    return C_U @ torch.diag(torch.cat([s[:rank] for _, s, _ in factors])) @ C_V.T


def whole_model(base: Mapping[str, Tensor], experts: Sequence[Mapping[str, Tensor]], rho: float | None) -> dict[str, Tensor]:
    """DC-Merge of every matrix, the mean of everything else."""
    merged = {}
    for name, value in base.items():
        deltas = [expert[name] - value for expert in experts]
        rank = min(value.shape) // len(experts) if value.ndim == 2 else 0
        merged[name] = dc_merge(deltas, rank, rho, padded=True) if rank else torch.stack(deltas).mean(0)
    return merged
