"""Cover basis, aligned deltas, the choices made in it, and the measures of direction: by hand and by property."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dcmerge.spectral.alignment import (
    CoverBasis,
    aligned_deltas,
    block_energy,
    cosine,
    cover_basis,
    diagonal_blocks,
    dirsim,
    elected,
    keep_count,
    keep_thresholds,
    kept_entries,
    overlap,
    own_blocks,
    own_kept_blocks,
    reconstruction_error,
    subspace_affinity,
    subspace_alignment_ratio,
)
from dcmerge.spectral.linalg import SVD, frobenius_norm, polar_factor, truncated_svd
from tests.builders import random_matrices

I4 = torch.eye(4)


def component(*terms: tuple[float, Tensor, Tensor]) -> SVD:
    """Σ s u vᵀ as given."""
    s = torch.tensor([value for value, _, _ in terms])
    U, V = (torch.stack([term[side] for term in terms], dim=1) for side in (1, 2))
    return SVD(U, s, V, s)


def test_cover_basis_of_orthogonal_tasks_is_their_own_basis() -> None:
    a = component((3.0, I4[0], I4[1]), (1.0, I4[1], I4[0]))
    b = component((2.0, I4[2], I4[3]), (1.0, I4[3], I4[2]))
    basis = cover_basis([a, b])
    torch.testing.assert_close(basis.U, I4)
    torch.testing.assert_close(basis.V, I4[:, [1, 0, 3, 2]])
    M = aligned_deltas(basis, torch.stack([a.s, b.s]))
    torch.testing.assert_close(M[0], torch.diag(torch.tensor([3.0, 1, 0, 0])))
    torch.testing.assert_close(M[1], torch.diag(torch.tensor([0.0, 0, 2, 1])))


def test_cover_basis_of_overlapping_tasks_worked_by_hand() -> None:
    """u_1 = e1, u_2 = (0.6, 0.8), v_1 = e1, v_2 = e2: both u end 45° from their bisector."""
    u = torch.tensor([0.6, 0.8])
    a, b = component((1.0, torch.eye(2)[0], torch.eye(2)[0])), component((1.0, u, torch.eye(2)[1]))
    basis = cover_basis([a, b])
    between = math.atan2(0.8, 0.6)
    first = (between - math.pi / 2) / 2
    turned = torch.tensor([math.cos(first), math.sin(first)])
    torch.testing.assert_close(basis.U[:, 0], turned)
    torch.testing.assert_close(basis.U[:, 1], torch.tensor([-turned[1], turned[0]]))
    torch.testing.assert_close(basis.V, torch.eye(2))
    c, s = turned.tolist()
    M = aligned_deltas(basis, torch.stack([2 * a.s, b.s]))
    torch.testing.assert_close(M[0], torch.tensor([[2 * c, 0], [-2 * s, 0]]))
    torch.testing.assert_close(M[1], torch.tensor([[0, 0.6 * c + 0.8 * s], [0, 0.8 * c - 0.6 * s]]))


@given(tasks=st.integers(1, 4), rank=st.integers(1, 3), extra=st.integers(0, 4), seed=st.integers(0, 500))
def test_cover_basis_is_orthonormal_and_spans_every_task(tasks: int, rank: int, extra: int, seed: int) -> None:
    m, n = tasks * rank + extra, tasks * rank + 2
    factors = [truncated_svd(D, rank) for D in random_matrices(tasks, m, n, seed)]
    basis = cover_basis(factors)
    eye = torch.eye(tasks * rank)
    assert (basis.U.T @ basis.U - eye).abs().max() < 1e-5 and (basis.V.T @ basis.V - eye).abs().max() < 1e-5
    for svd, M in zip(factors, aligned_deltas(basis, torch.stack([f.s for f in factors])), strict=True):
        assert reconstruction_error(svd, svd.s, M, basis) < 1e-4


def test_reconstruction_in_float64_is_exact() -> None:
    factors = [truncated_svd(D.double(), 3) for D in random_matrices(3, 12, 10)]
    basis = cover_basis(factors)
    M = aligned_deltas(basis, torch.stack([f.s for f in factors]))
    assert max(reconstruction_error(f, f.s, m, basis) for f, m in zip(factors, M, strict=True)) < 1e-13


@pytest.mark.parametrize(
    "deltas",
    [
        [random_matrices(1, 6, 8)[0]] * 2,
        [torch.zeros(6, 8), *random_matrices(1, 6, 8)],
        [torch.zeros(6, 8)] * 3,
        [torch.ones(6, 8), -torch.ones(6, 8)],
    ],
    ids=["equal", "one zero", "all zero", "opposite, rank 1"],
)
def test_cover_basis_of_deficient_tasks_spans_them_and_no_more(deltas: list[Tensor]) -> None:
    factors = [truncated_svd(D, 2) for D in deltas]
    basis = cover_basis(factors)
    for Q in (basis.U, basis.V):
        assert (Q @ Q.T @ Q - Q).abs().max() < 1e-5
    for svd, M in zip(factors, aligned_deltas(basis, torch.stack([f.s for f in factors])), strict=True):
        assert reconstruction_error(svd, svd.s, M, basis) < 1e-5


def test_arbitrary_vectors_of_a_zero_delta_leave_the_others_alone() -> None:
    D = random_matrices(1, 6, 8)[0]
    svd = truncated_svd(D, 2)
    basis = cover_basis([truncated_svd(torch.zeros(6, 8), 2), svd])
    torch.testing.assert_close(basis.U[:, 2:], svd.U)
    torch.testing.assert_close(basis.V[:, 2:], svd.V)


def test_cover_basis_refuses_different_ranks() -> None:
    a, b = (truncated_svd(D, r) for D, r in zip(random_matrices(2, 6, 6), (1, 2), strict=True))
    with pytest.raises(ValueError, match="one rank"):
        cover_basis([a, b])


@pytest.mark.parametrize(
    ("size", "count"),
    [(128, 16), (192, 36), (256, 65), (512, 262), (768, 589), (1024, 1048), (50, 2), (197, 38), (257, 66), (3, 1)],
)
def test_keep_counts_of_the_published_code(size: int, count: int) -> None:
    assert keep_count(1e-3, size) == count


M2 = torch.tensor([[[4.0, -1.0], [0.5, 2.0]], [[-2.0, 2.0], [0.0, 2.0]]])


def kept(M: Tensor, count: int) -> Tensor:
    return kept_entries(M, keep_thresholds(M, count))


def test_kept_entries_worked_by_hand() -> None:
    assert kept(M2, 1).tolist() == [[[True, False], [False, False]], [[True, True], [False, True]]]
    assert kept(M2, 3).tolist() == [[[True, True], [False, True]], [[True, True], [False, True]]]
    assert kept(M2, 100).all() and kept(M2, 4).all()
    assert not kept(M2, 0).any()


def test_every_entry_of_a_zero_delta_is_a_tie() -> None:
    assert kept(torch.zeros(1, 3, 3), 2).all()


@given(count=st.integers(1, 16), seed=st.integers(0, 500))
def test_as_many_entries_as_asked_are_kept_without_ties(count: int, seed: int) -> None:
    M = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = kept(M, count)
    assert found.sum(dim=(1, 2)).tolist() == [count, count]
    assert all(m[k].abs().min() >= m[~k].abs().max() for m, k in zip(M, found, strict=True) if count < 16)


def independent(tasks: int, rank: int, size: int) -> tuple[CoverBasis, Tensor]:
    """The basis of ``tasks`` unrelated deltas (size, size), and their singular values."""
    factors = [truncated_svd(D, rank) for D in random_matrices(tasks, size, size)]
    return cover_basis(factors), torch.stack([svd.s for svd in factors])


@pytest.mark.parametrize(("tasks", "rank", "count"), [(4, 4, 6), (8, 3, 10), (1, 5, 7)])
def test_own_blocks_alone_are_what_all_entries_say(tasks: int, rank: int, count: int) -> None:
    basis, s = independent(tasks, rank, 320)
    found = own_kept_blocks(basis, s, count)
    M = aligned_deltas(basis, s)
    all_kept = own_blocks(M * kept(M, count), tasks)  # (T, T, r, r)
    assert found is not None and not all_kept[~torch.eye(tasks, dtype=torch.bool)].any()
    torch.testing.assert_close(found, torch.stack([all_kept[t, t] for t in range(tasks)]))


def test_own_blocks_alone_are_not_taken_where_another_block_may_keep_entries() -> None:
    shared = [truncated_svd(D, 4) for D in 2 * random_matrices(1, 40, 40)]
    assert own_kept_blocks(cover_basis(shared), torch.stack([svd.s for svd in shared]), 4) is None
    basis, s = independent(4, 4, 320)
    assert own_kept_blocks(basis, s, 16 * 16) is None
    assert own_kept_blocks(basis, 0 * s, 4) is None


def test_elected_worked_by_hand() -> None:
    """Per entry: 1, 2 agree with +; −4 outvotes 1, 1; 3 and −3 cancel to 0; a zero is no vote."""
    M = torch.tensor([[[1.0, 1.0], [3.0, 0.0]], [[2.0, 1.0], [-3.0, 5.0]], [[-0.5, -4.0], [0.0, 0.0]]])
    assert elected(M).tolist() == [[1.5, -4.0], [0.0, 5.0]]


def test_election_does_not_depend_on_order_and_commutes_with_scale() -> None:
    M = torch.stack(random_matrices(5, 6, 6))
    torch.testing.assert_close(elected(M[[4, 2, 0, 1, 3]]), elected(M))
    torch.testing.assert_close(elected(-3 * M), -3 * elected(M))
    torch.testing.assert_close(elected(M[:1]), M[0])


def test_diagonal_blocks() -> None:
    assert diagonal_blocks(2, 2).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert diagonal_blocks(3, 1).int().tolist() == torch.eye(3).int().tolist()
    assert diagonal_blocks(3, 0).shape == (0, 0)


def test_block_energy_worked_by_hand() -> None:
    M = torch.zeros(1, 4, 4)
    M[0, 0, 0], M[0, 1, 1], M[0, 0, 3], M[0, 3, 3] = 1, 1, 1, 1
    assert block_energy(M, 2).tolist() == [[[0.5, 0.25], [0.0, 0.25]]]
    assert not block_energy(torch.zeros(2, 4, 4), 2).any()


def test_dirsim_worked_by_hand() -> None:
    """Two components against two: only ⟨e1, e1⟩⟨e1, (0.6, 0.8)⟩ = 0.6 and ⟨e2, −e2⟩⟨e2, (−0.8, 0.6)⟩ = −0.6 remain."""
    e1, e2 = torch.eye(2)
    a = component((2.0, e1, e1), (1.0, e2, e2))
    b = component((5.0, e1, torch.tensor([0.6, 0.8])), (1.0, -e2, torch.tensor([-0.8, 0.6])))
    assert dirsim(a, b) == pytest.approx((0.6 + 0.6) / 2)


def test_dirsim_of_the_same_components_is_one() -> None:
    svd = truncated_svd(random_matrices(1, 9, 7)[0], 4)
    shuffled = SVD(-svd.U[:, [2, 0, 1, 3]], svd.s, -svd.V[:, [2, 0, 1, 3]], svd.spectrum)
    assert dirsim(svd, svd) == pytest.approx(1, abs=1e-5) and dirsim(svd, shuffled) == pytest.approx(1, abs=1e-5)


def test_dirsim_of_orthogonal_and_zero_deltas_is_zero() -> None:
    a, b = component((1.0, I4[0], I4[0])), component((1.0, I4[0], I4[1]))
    zero = truncated_svd(torch.zeros(4, 4), 2)
    assert dirsim(a, b) == dirsim(a, zero) == dirsim(zero, zero) == 0


def test_dirsim_of_independent_deltas_is_near_its_expectation() -> None:
    r, d = 16, 256
    draw = torch.Generator().manual_seed(0)

    def independent() -> SVD:
        U, V = (polar_factor(torch.randn(d, r, generator=draw)) for _ in range(2))
        return SVD(U, torch.ones(r), V, torch.ones(r))

    found = sum(dirsim(independent(), independent()) for _ in range(5)) / 5
    assert found == pytest.approx(2 * r / (math.pi * d), rel=0.05)


def test_dirsim_ignores_components_that_are_zero() -> None:
    a = component((1.0, I4[0], I4[0]))
    padded = component((1.0, I4[0], I4[0]), (0.0, I4[1], I4[1]))
    assert dirsim(a, padded) == pytest.approx(1)


def test_subspace_affinity_worked_by_hand() -> None:
    tilted = torch.tensor([[0.6], [0.8], [0.0], [0.0]])
    assert subspace_affinity(I4[:, :1], tilted) == pytest.approx(0.36)
    assert subspace_affinity(I4[:, :2], tilted) == pytest.approx(1)
    assert subspace_affinity(I4[:, 2:], tilted) == 0
    assert subspace_affinity(I4[:, :0], tilted) == 0
    table = overlap([I4[:, :1], I4[:, 1:2]], [I4[:, :1], I4[:, :2], I4[:, 2:]])
    assert table.tolist() == [[1, 1, 0], [0, 1, 0]]


def test_subspace_alignment_ratio_worked_by_hand() -> None:
    """99.5 % of the merged energy lies in e1 and e2, so k = 2; of the task's 3² + 4² only the 3 along e1 lies there."""
    merged = truncated_svd(torch.diag(torch.tensor([10.0, 10.0, 1.0, 0.0])))
    task = torch.diag(torch.tensor([3.0, 0.0, 0.0, 4.0]))
    assert subspace_alignment_ratio(merged, task, error=0.1) == pytest.approx(0.6)
    assert subspace_alignment_ratio(merged, task.T @ I4[:, [3, 1, 2, 0]], error=0.1) == pytest.approx(0.6)
    assert subspace_alignment_ratio(merged, torch.diag(torch.tensor([0, 0, 1.0, 0])), error=0.1) == 0
    assert subspace_alignment_ratio(merged, torch.diag(torch.tensor([0, 0, 1.0, 0]))) == pytest.approx(1)


def test_subspace_alignment_ratio_of_zero_is_zero() -> None:
    zero = torch.zeros(4, 4)
    assert subspace_alignment_ratio(truncated_svd(zero), I4) == subspace_alignment_ratio(truncated_svd(I4), zero) == 0


def test_subspace_alignment_counts_the_energy_that_was_not_kept() -> None:
    """Of a large matrix only the kept singular values are known; with its norm they give what the whole spectrum gives."""
    whole, delta = truncated_svd(random_matrices(1, 512, 520)[0]), random_matrices(1, 512, 520, 1)[0]
    merged = whole.dense(0.97 ** torch.arange(512))
    kept, whole = truncated_svd(merged, 32), truncated_svd(merged).truncate(32)
    assert (kept.spectrum.numel(), whole.spectrum.numel()) == (32, 512)
    wanted = subspace_alignment_ratio(whole, delta, error=0.3)
    assert subspace_alignment_ratio(kept, delta, frobenius_norm(merged), error=0.3) == pytest.approx(wanted, rel=1e-5)
    assert subspace_alignment_ratio(kept, delta, error=0.3) < 0.95 * wanted


def test_cosine() -> None:
    a, b = torch.tensor([[3.0, 0], [0, 4.0]]), torch.tensor([[0.0, 1], [1, 0]])
    assert cosine(a, 2 * a) == pytest.approx(1) and cosine(a, -a) == pytest.approx(-1)
    assert cosine(a, b) == 0 and cosine(a, torch.zeros(2, 2)) == 0
