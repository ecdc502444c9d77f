"""Singular-value spectra of deltas: energy, effective ranks and DC-Merge's smoothing.

"Energy" has two meanings in this field. DC-Merge smooths the *sum of singular values* (power 1, the nuclear norm); the usual
energy of a spectrum is the *sum of their squares* (power 2, the squared Frobenius norm). Every function here takes ``power``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dcmerge.errors import InputError

SMOOTHINGS = ("none", "average", "linear")


def smooth(s: Tensor, strategy: str = "none", rho: float = 5.0) -> Tensor:
    """Flatter singular values with the same sum; ``s`` is (..., r), descending and non-negative, and so is the result.

    none:    s̄ = s
    average: s̄_j = Σs / r                                     (DC-Merge, Eq. 12)
    linear:  s̄ = Σs · w / Σw,  w = linspace(min(ρ, s_1/s_r), 1, r)  (DC-Merge, Eq. 13-14; ρ = 1 is average)

    Raises InputError for an unknown strategy or ρ below 1.
    """
    if strategy not in SMOOTHINGS:
        raise InputError(f"smoothing: expected one of {', '.join(SMOOTHINGS)}, got {strategy!r}")
    if not rho >= 1 or math.isinf(rho):
        raise InputError(f"rho: expected a finite number of at least 1, got {rho}")
    if strategy == "none" or s.shape[-1] == 0:
        return s.clone()
    total = s.sum(dim=-1, keepdim=True)
    w = torch.ones_like(s)
    if strategy == "linear":
        ratio = (s[..., :1] / s[..., -1:]).nan_to_num(nan=1.0, posinf=rho).clamp(1.0, rho)
        w = 1 + (ratio - 1) * torch.linspace(1, 0, s.shape[-1], dtype=s.dtype, device=s.device)
    return total * (w / w.sum(dim=-1, keepdim=True))


def energy_share(s: Tensor, power: int = 2) -> Tensor:
    """s_j^p / Σ s^p, (..., r); zeros where the delta is zero."""
    energy = s.double() ** power
    return energy / energy.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)


def cumulative_energy(s: Tensor, power: int = 2) -> Tensor:
    """Share of the energy held by the first j components, (..., r)."""
    return energy_share(s, power).cumsum(dim=-1)


def effective_rank(s: Tensor) -> float:
    """exp(−Σ p log p) with p = s / Σs (Roy & Vetterli 2007); between 1 and r, 0 for a zero delta."""
    p = energy_share(s, power=1)
    return torch.special.entr(p).sum().exp().item() if p.sum() > 0 else 0.0


def stable_rank(s: Tensor) -> float:
    """‖D‖_F² / ‖D‖_2² = Σs² / s_1² (Rudelson & Vershynin 2007); 0 for a zero delta."""
    s = s.double()
    return ((s**2).sum() / s[0] ** 2).item() if s.numel() and s[0] > 0 else 0.0


def top_share(s: Tensor, fraction: float = 0.05, power: int = 2) -> float:
    """Share of the energy in the leading ``fraction`` of the components (at least one)."""
    return energy_share(s, power)[: leading_count(s.numel(), fraction)].sum().item()


def leading_count(components: int, fraction: float = 0.05) -> int:
    """How many components the leading ``fraction`` is, at least one."""
    return max(1, math.ceil(fraction * components))


@dataclass(frozen=True)
class KeyFigures:
    """What one spectrum says in six numbers."""

    components: int
    largest: float
    sum: float
    effective_rank: float
    stable_rank: float
    top_share: float


def key_figures(s: Tensor, fraction: float = 0.05, power: int = 2) -> KeyFigures:
    """The figures of one spectrum ``s`` (r,); the top share is of the leading ``fraction`` by ``power``."""
    largest = s[0].item() if s.numel() else 0.0
    return KeyFigures(s.numel(), largest, s.sum().item(), effective_rank(s), stable_rank(s), top_share(s, fraction, power))
