"""The float32 start with the float64 finish gives what float64 alone gives, or says that it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge.spectral.eigen import gram_matrix, leading_eigenpairs
from dcmerge.spectral.linalg import truncated_svd
from dcmerge.vectors.layers import layer_of
from tests.builders import layer_set, random_matrices, relative_error


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    """A float64 matrix with these eigenvalues."""
    Q = torch.linalg.qr(torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(seed)).double()).Q
    return (Q * values) @ Q.T


@pytest.mark.parametrize("shape", [(5, 9), (192, 7), (193, 260), (400, 30)])
def test_the_gram_matrix_is_the_product(shape: tuple[int, int]) -> None:
    D = random_matrices(1, *shape)[0]
    torch.testing.assert_close(gram_matrix(D), D.double() @ D.double().T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 0.0])
def test_neighbouring_eigenvalues_come_out_exact(gap: float) -> None:
    """Float32 alone mixes the two vectors whose eigenvalues are this near."""
    values = torch.linspace(1, 0.01, 150, dtype=torch.float64)
    values[4] = values[3] - gap
    G = symmetric(values)
    found, X = leading_eigenpairs(G, 20)
    torch.testing.assert_close(found, values[:20].sort(descending=True).values, rtol=1e-10, atol=1e-10)
    assert ((G @ X - X * found).norm(dim=0) < 1e-8).all()
    torch.testing.assert_close(X.T @ X, torch.eye(20, dtype=torch.float64), rtol=0, atol=1e-9)


def test_eigenvalues_too_small_for_float32_are_refused() -> None:
    assert leading_eigenpairs(symmetric(10.0 ** -torch.linspace(0, 12, 100, dtype=torch.float64)), 20) is None
    assert leading_eigenpairs(symmetric(torch.ones(40, dtype=torch.float64)), 20) is None  # too many of them to be worth it


@pytest.mark.parametrize("shape", [(512, 520), (520, 512)])
def test_few_components_of_a_large_matrix_are_those_of_a_full_svd(shape: tuple[int, int]) -> None:
    D = random_matrices(1, *shape)[0]
    U, s, Vt = torch.linalg.svd(D.double(), full_matrices=False)
    svd = truncated_svd(D, 32)
    assert svd.spectrum.numel() == 32, "the route under test was not taken"
    assert (svd.s.double() / s[:32] - 1).abs().max() < 1e-6
    assert relative_error(svd.dense().double(), (U[:, :32] * s[:32]) @ Vt[:32]) < 1e-5


def test_the_spectra_of_a_large_matrix_are_whole(tmp_path: Path) -> None:
    """The route that knows the kept values alone must not shorten what the pictures and figures show."""
    deltas = list(random_matrices(4, 512, 520))
    layer = layer_of(layer_set(tmp_path, deltas), "weight")
    assert layer.factors(layer.default_rank())[0].spectrum.numel() == 128
    for D, s in zip(deltas, layer.spectra(), strict=True):
        torch.testing.assert_close(s, torch.linalg.svdvals(D.double()).float(), rtol=1e-5, atol=1e-6)
