"""The fast path agrees with the formulas written down plainly: one full SVD each, dense products, float64."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge.methods.dc_merge import dc_merge, trace
from dcmerge.methods.tsv_m import tsv_m
from dcmerge.spectral.alignment import own_kept_blocks
from dcmerge.vectors.layers import layer_of
from tests.builders import layer_set, random_matrices, relative_error
from tests.methods import published

TOLERANCE = 1e-4


def orthonormal(size: int, columns: int, seed: int) -> Tensor:
    return torch.linalg.qr(random_matrices(1, size, columns, seed)[0]).Q


def sharing_directions() -> list[Tensor]:
    """Three experts with the same singular vectors, weighted differently."""
    U, V = orthonormal(24, 8, 1), orthonormal(40, 8, 2)
    return [(U * s) @ V.T for s in (torch.linspace(8, 1, 8), torch.linspace(5, 2, 8), torch.linspace(9, 0.5, 8))]


def random(tasks: int, m: int, n: int) -> Callable[[], list[Tensor]]:
    return lambda: list(random_matrices(tasks, m, n))


CASES: dict[str, tuple[Callable[[], list[Tensor]], int | None, float]] = {
    "ordinary, wide": (random(3, 24, 40), None, 1e-2),
    "ordinary, tall": (random(3, 40, 24), None, 1e-2),
    "smaller rank": (random(3, 24, 24), 2, 1e-2),
    "shared directions": (sharing_directions, None, 1.0),
    "two identical": (lambda: [*2 * random_matrices(1, 24, 40), *random_matrices(1, 24, 40, 5)], None, 1.0),
    "a zero delta": (lambda: [torch.zeros(24, 40), *random_matrices(2, 24, 40)], None, 1.0),
    "more asked than fits": (random(4, 12, 30), 8, 1e-2),
    "hardly related": (random(4, 160, 240), 4, 2e-4),
    "hardly related, tall": (random(4, 240, 160), 4, 2e-4),
    "one row": (random(3, 1, 30), None, 1e-2),
    "as many rows as tasks": (random(3, 3, 30), None, 1.0),
}


def plain_basis(columns: list[Tensor]) -> Tensor:
    """Polar factor by a full SVD; of dependent columns the partial isometry on their range."""
    U, s, Vt = torch.linalg.svd(torch.cat(columns, dim=1), full_matrices=False)
    present = s > 1e-6 * s[0]
    return U[:, present] @ Vt[present]


def plain_factors(deltas: list[Tensor], r: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    factors = []
    for D in deltas:
        U, s, Vt = torch.linalg.svd(D.double(), full_matrices=False)
        there = s[:r] > 1e-6 * s[0].clamp_min(1e-30)
        factors.append((U[:, :r] * there, s[:r], Vt[:r].T * there))
    return factors


def plain_dc_merge(deltas: list[Tensor], rank: int | None, keep: float, rho: float) -> Tensor:
    tasks, smaller = len(deltas), min(deltas[0].shape)
    r = smaller // tasks if rank is None else min(rank, smaller // tasks)
    if r == 0:
        return torch.stack(deltas).double().mean(dim=0)
    factors = plain_factors(deltas, r)
    C_U, C_V = (plain_basis([f[side] for f in factors]) for side in (0, 2))
    M = torch.stack([C_U.T @ (U * published.flatter(s, "linear", rho)) @ V.T @ C_V for U, s, V in factors])
    width = smaller if r == smaller // tasks else M.shape[-1]
    thresholds = M.abs().flatten(1).sort(dim=1, descending=True).values[:, max(1, int(keep * width * width)) - 1]
    M = M * (M.abs() >= thresholds[:, None, None])
    return C_U @ (published.ties_small(list(M)) * published.block_mask(tasks * r, tasks)) @ C_V.T


@pytest.mark.parametrize("case", CASES)
def test_dc_merge_is_the_plain_formula(tmp_path: Path, case: str) -> None:
    make, rank, keep = CASES[case]
    deltas = make()
    layer = layer_of(layer_set(tmp_path, deltas), "weight")
    for rho in (5.0, 2.0):  # the second time only ρ is new
        found = dc_merge(layer, rank=rank, smoothing="linear", rho=rho, keep=keep)
        assert relative_error(found, plain_dc_merge(deltas, rank, keep, rho).float()) < TOLERANCE


@pytest.mark.parametrize("elect", [True, False])
def test_blocks_of_one_task_each_are_what_all_blocks_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elect: bool) -> None:
    vectors = layer_set(tmp_path, random(4, 160, 240)()).mixed(weights={"task0": 2.0, "task1": -0.5})
    stages = trace(layer_of(vectors, "weight"), rank=4, keep=2e-4, elect=elect)
    assert stages is not None and own_kept_blocks(stages.basis, stages.smoothed, stages.count) is not None
    quick = stages.blocks
    monkeypatch.setattr(sys.modules[dc_merge.__module__], "own_kept_blocks", lambda *given: None)
    torch.testing.assert_close(quick, replace(stages).blocks)


@pytest.mark.parametrize("case", CASES)
def test_tsv_m_is_the_plain_formula(tmp_path: Path, case: str) -> None:
    make, rank, _ = CASES[case]
    deltas = make()
    r = min(deltas[0].shape) // len(deltas) if rank is None else min(rank, min(deltas[0].shape) // len(deltas))
    found = tsv_m(layer_of(layer_set(tmp_path, deltas), "weight"), rank=rank)
    if r == 0:
        wanted = torch.stack(deltas).double().mean(dim=0)
    else:
        factors = plain_factors(deltas, r)
        C_U, C_V = (plain_basis([f[side] for f in factors]) for side in (0, 2))
        wanted = C_U @ torch.diag(torch.cat([f[1] for f in factors])) @ C_V.T
    assert relative_error(found, wanted.float()) < TOLERANCE
