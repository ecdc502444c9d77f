"""Truncated SVD, polar factor and low-rank products against torch.linalg and against properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.errors import InputError
from dcmerge.runtime.threads import on_all_threads
from dcmerge.spectral.linalg import frobenius_norm, polar_factor, singular_values, truncated_svd
from tests.builders import random_matrices, relative_error

SHAPES = [(8, 8), (3, 11), (11, 3), (1, 6), (6, 1), (1, 1), (17, 96)]


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def orthonormality(Q: Tensor) -> float:
    Q = Q.double()
    return (Q.T @ Q - torch.eye(Q.shape[1], dtype=Q.dtype)).abs().max().item() if Q.shape[1] else 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_svd_agrees_with_torch(shape: tuple[int, int], dtype: torch.dtype) -> None:
    D, small = randn(*shape, dtype=dtype), min(shape)
    U, s, Vt = torch.linalg.svd(D.double(), full_matrices=False)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-9
    for rank in {1, (small + 1) // 2, small}:
        svd = truncated_svd(D, rank)
        assert (svd.U.shape, svd.s.shape, svd.V.shape) == ((shape[0], rank), (rank,), (shape[1], rank))
        assert svd.U.dtype == svd.s.dtype == svd.V.dtype == dtype
        assert svd.spectrum.double().allclose(s, rtol=tolerance, atol=tolerance * s[0].item())
        assert relative_error(svd.dense(), (U[:, :rank] * s[:rank]) @ Vt[:rank]) < tolerance
        assert max(orthonormality(svd.U), orthonormality(svd.V)) < tolerance


def test_svd_of_a_matrix_worked_by_hand() -> None:
    """[[0, -3], [2, 0]] = 3 · e1 (−e2)ᵀ + 2 · e2 e1ᵀ, left vectors with positive leading entries."""
    svd = truncated_svd(torch.tensor([[0.0, -3.0], [2.0, 0.0]]))
    assert svd.s.tolist() == pytest.approx([3, 2])
    torch.testing.assert_close(svd.U, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(svd.V, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))


def test_signs_of_the_left_vectors_are_fixed() -> None:
    D = randn(9, 14)
    for svd in (truncated_svd(D), truncated_svd(D, 4), truncated_svd(LowRank(D[:, :5], D[:5]))):
        largest = svd.U.gather(0, svd.U.abs().argmax(dim=0, keepdim=True))
        assert (largest > 0).all()
    same, negated = truncated_svd(D), truncated_svd(-D)
    torch.testing.assert_close(same.U, negated.U)
    torch.testing.assert_close(same.V, -negated.V)
    assert torch.equal(truncated_svd(D).U, same.U)


def test_small_singular_values_survive() -> None:
    """A spectrum over seven orders of magnitude: a Gram matrix in float32 would lose everything below 3e-4."""
    U, V = polar_factor(randn(30, 8, dtype=torch.float64)), polar_factor(randn(20, 8, seed=1, dtype=torch.float64))
    s = 10.0 ** -torch.arange(8, dtype=torch.float64)
    svd = truncated_svd((U * s) @ V.T, 8)
    torch.testing.assert_close(svd.s, s, rtol=1e-6, atol=0)
    assert max(orthonormality(svd.U), orthonormality(svd.V)) < 1e-9
    assert relative_error(svd.U[:, 7].outer(svd.V[:, 7]), U[:, 7].outer(V[:, 7])) < 1e-6


@pytest.mark.parametrize("rank", [0, 1, 3, 4])
def test_svd_of_zero_is_zero_with_orthonormal_vectors(rank: int) -> None:
    svd = truncated_svd(torch.zeros(4, 7), rank)
    assert svd.rank == rank and not svd.s.any() and svd.spectrum.tolist() == [0] * 4
    assert max(orthonormality(svd.U), orthonormality(svd.V)) < 1e-6


def test_svd_of_a_rank_deficient_matrix_has_orthonormal_vectors() -> None:
    svd = truncated_svd(randn(9, 2) @ randn(2, 7, seed=1))
    assert svd.rank == 7 and (svd.s[2:] < 1e-6 * svd.s[0]).all()
    assert max(orthonormality(svd.U), orthonormality(svd.V)) < 1e-6


def test_half_precision_is_computed_in_float32() -> None:
    svd = truncated_svd(randn(5, 6).half(), 2)
    assert svd.U.dtype == svd.s.dtype == torch.float32


@given(m=st.integers(1, 12), n=st.integers(1, 12), r=st.integers(1, 14), seed=st.integers(0, 1000))
@example(m=3, n=3, r=7, seed=0)
@example(m=1, n=1, r=12, seed=596)
def test_low_rank_and_dense_routes_agree(m: int, n: int, r: int, seed: int) -> None:
    """In float64: a product whose terms cancel, as in the last example, loses float32's digits whatever the route."""
    low = LowRank(randn(m, r, seed=seed, dtype=torch.float64), randn(r, n, seed=seed + 1, dtype=torch.float64))
    dense = low.dense()
    thin, full = truncated_svd(low), truncated_svd(dense)
    p = min(m, n, r)
    assert (singular_values(low)[:p] - singular_values(dense)[:p]).abs().max() < 1e-5 * full.s[0]
    assert relative_error(thin.dense(), dense) < 1e-5
    assert frobenius_norm(low) == pytest.approx(frobenius_norm(dense), rel=1e-5)
    assert frobenius_norm(dense) == pytest.approx(dense.norm().item(), rel=1e-5)
    assert max(orthonormality(thin.U), orthonormality(thin.V)) < 1e-5


def test_truncation_is_a_view_of_the_leading_components() -> None:
    svd = truncated_svd(randn(6, 8))
    part = svd.truncate(2)
    assert part.rank == 2 and part.spectrum is svd.spectrum and part.U.data_ptr() == svd.U.data_ptr()
    assert torch.equal(svd.truncate(2).dense(torch.ones(2)), svd.U[:, :2] @ svd.V[:, :2].T)


def test_polar_factor_worked_by_hand() -> None:
    """Two columns of length 1 with inner product c become symmetric about the same bisector; c = 0.6."""
    C = torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    Q = polar_factor(C)
    # (CᵀC)^(−1/2) has eigenvalues 1/√1.6 on (1, 1)/√2 and 1/√0.4 on (1, −1)/√2.
    a, b = 0.5 * (1.6**-0.5 + 0.4**-0.5), 0.5 * (1.6**-0.5 - 0.4**-0.5)
    torch.testing.assert_close(Q, C @ torch.tensor([[a, b], [b, a]]))
    assert (Q[:, 0] @ C[:, 0]).item() == pytest.approx((Q[:, 1] @ C[:, 1]).item())


@pytest.mark.parametrize("shape", [(8, 8), (20, 5), (3, 1), (5, 0)])
def test_polar_factor_is_that_of_the_svd(shape: tuple[int, int]) -> None:
    C = randn(*shape)
    U, _, Vt = torch.linalg.svd(C.double(), full_matrices=False)
    Q = polar_factor(C)
    assert Q.dtype == C.dtype and Q.shape == C.shape
    torch.testing.assert_close(Q.double(), U @ Vt, rtol=1e-6, atol=1e-6)


def test_polar_factor_is_the_nearest_orthonormal_matrix() -> None:
    C = randn(7, 4, dtype=torch.float64)
    distance = (polar_factor(C) - C).norm()
    for seed in range(20):
        other = polar_factor(C + 0.3 * randn(7, 4, seed=seed + 1, dtype=torch.float64))
        assert (other - C).norm() >= distance


def test_polar_factor_follows_a_permutation_of_the_columns() -> None:
    C, order = randn(9, 5), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(polar_factor(C[:, order]), polar_factor(C)[:, order])


DEFICIENT = {
    "duplicates": torch.cat([randn(8, 3), randn(8, 3)], dim=1),
    "zero column": torch.cat([randn(8, 3), torch.zeros(8, 2)], dim=1),
    "rank 1": randn(8, 1) @ randn(1, 4, seed=1),
    "zero": torch.zeros(6, 4),
    "square of rank 2": randn(5, 2) @ randn(2, 5, seed=1),
    "nearly equal": torch.cat([randn(8, 1), randn(8, 1) + 1e-9], dim=1),
    "ill-conditioned": randn(8, 4) * torch.tensor([1, 1e-2, 1e-4, 1e-5]),
}


@pytest.mark.parametrize("name", DEFICIENT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_polar_factor_of_deficient_columns_is_a_partial_isometry(name: str, dtype: torch.dtype) -> None:
    """Q QᵀQ = Q (lengths are kept on C's row space), and Q lies in the range of C: nothing that no expert has comes in."""
    C = DEFICIENT[name].to(dtype)
    Q = polar_factor(C)
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-9}
    torch.testing.assert_close(Q @ Q.T @ Q, Q, **tolerance)
    outside = Q - C @ torch.linalg.pinv(C.double(), rtol=1e-7).to(dtype) @ Q
    assert outside.abs().max() < 1e-4
    assert torch.equal(Q, polar_factor(C.clone()))


def test_polar_factor_keeps_the_columns_that_are_there() -> None:
    """Zero columns stay zero and do not move the others."""
    C = randn(8, 3)
    Q = polar_factor(torch.cat([C[:, :1], torch.zeros(8, 2), C[:, 1:]], dim=1))
    torch.testing.assert_close(Q[:, [0, 3, 4]], polar_factor(C))
    torch.testing.assert_close(Q[:, 1:3], torch.zeros(8, 2))


def test_equal_columns_share_their_direction() -> None:
    """polar [e1 e1] = [e1 e1] / √2, by hand."""
    e1 = torch.eye(4)[:, :1]
    torch.testing.assert_close(polar_factor(torch.cat([e1, e1], dim=1)), torch.cat([e1, e1], dim=1) / 2**0.5)


@given(m=st.integers(1, 10), k=st.integers(1, 10), rank=st.integers(0, 10), seed=st.integers(0, 1000))
def test_polar_factor_is_orthonormal_where_columns_are_independent(m: int, k: int, rank: int, seed: int) -> None:
    if k > m:
        m, k = k, m
    C = randn(m, rank, seed=seed) @ randn(rank, k, seed=seed + 1)
    Q = polar_factor(C)
    assert (orthonormality(Q) < 1e-5) if rank >= k else (Q @ Q.T @ Q - Q).abs().max() < 1e-5


def test_polar_factor_refuses_more_columns_than_rows() -> None:
    with pytest.raises(ValueError, match="at least as many rows"):
        polar_factor(randn(3, 4))


@pytest.mark.parametrize("threads", [1, 2])
def test_work_on_all_threads_keeps_order_results_and_the_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        matrices = random_matrices(5, 40, 30)
        wanted = [truncated_svd(D, 4).U for D in matrices]
        found = on_all_threads(lambda D: truncated_svd(D, 4).U, matrices)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))
        with pytest.raises(ZeroDivisionError):
            on_all_threads(lambda n: 1 / n, [1, 0])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def decaying(m: int, n: int, rank: int = 8) -> Tensor:
    """Strong directions over a floor of noise, as deltas of experts are."""
    left, right = random_matrices(1, m, rank, 1)[0], random_matrices(1, rank, n, 2)[0]
    return left @ right + 1e-3 * random_matrices(1, m, n, 3)[0]


@pytest.mark.parametrize("shape", [(64, 160), (160, 64)])
def test_a_randomised_svd_keeps_to_its_tolerance(shape: tuple[int, int]) -> None:
    D = decaying(*shape)
    exact, found = truncated_svd(D, 8), truncated_svd(D, 8, tolerance=1e-3)
    assert found.spectrum.numel() == 8 and exact.spectrum.numel() == 64  # so it was the randomised one
    torch.testing.assert_close(found.s, exact.s, rtol=1e-5, atol=0)
    residual = (D @ found.V - found.U * found.s).norm(dim=0) / found.s
    assert residual.max() <= 1e-3 and relative_error(found.dense(), exact.dense()) < 1e-3
    assert torch.equal(truncated_svd(D, 8, tolerance=1e-3).U, found.U)  # the same every time


def test_what_a_randomised_svd_cannot_reach_is_computed_exactly() -> None:
    D = random_matrices(1, 64, 80)[0]  # a flat spectrum
    found, exact = truncated_svd(D, 8, tolerance=1e-6), truncated_svd(D, 8)
    assert torch.equal(found.U, exact.U) and found.spectrum.numel() == 64
    assert torch.equal(truncated_svd(D, 40, tolerance=0.1).s, truncated_svd(D, 40).s)  # too many components to pay


@pytest.mark.parametrize("name", ["tpu", "cuda:9", "cuda"])
def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("DCMERGE_DEVICE", name)
    with pytest.raises(InputError, match=f"DCMERGE_DEVICE: expected cpu, got '{name}'"):
        truncated_svd(torch.eye(3), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_the_same_within_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    D = decaying(96, 160)
    found, polar = truncated_svd(D, 8), polar_factor(D.T)
    monkeypatch.setenv("DCMERGE_DEVICE", "cpu")
    wanted = truncated_svd(D, 8)
    assert found.U.device.type == "cpu" and relative_error(found.dense(), wanted.dense()) < 1e-5
    assert relative_error(polar, polar_factor(D.T)) < 1e-5


def test_a_large_polar_factor_in_float32_is_that_of_float64_and_dependent_columns_are_not_tried() -> None:
    C = torch.randn(1100, 520, generator=torch.Generator().manual_seed(0))
    found, wanted = polar_factor(C), polar_factor(C.double())
    assert (found.T @ found - torch.eye(520)).abs().max() < 1e-5
    assert relative_error(found, wanted.float()) < 1e-5
    C[:, 1] = C[:, 0]  # one direction less: a partial isometry
    found = polar_factor(C)
    torch.testing.assert_close(found[:, 0], found[:, 1], atol=1e-6, rtol=0)
    assert torch.linalg.matrix_rank(found) == 519
