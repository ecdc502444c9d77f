"""What is shown is what a direct computation gives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge.errors import Cancelled
from dcmerge.methods import merged_deltas
from dcmerge.spectral.alignment import diagonal_blocks
from dcmerge.studies.inspection import MEASURES, concentration, consistency, layer_alignment, layer_spectra, matrices
from dcmerge.vectors.layers import Layer, layer_of
from tests.builders import SHAPES, full_set, layer_set, lora_set, random_deltas, random_factors, random_matrices

TASKS, ROWS, COLUMNS = 3, 14, 10
RANK = COLUMNS // TASKS


@pytest.fixture
def deltas() -> list[Tensor]:
    return random_matrices(TASKS, ROWS, COLUMNS, seed=1)


@pytest.fixture
def layer(tmp_path: Path, deltas: list[Tensor]) -> Layer:
    return layer_of(layer_set(tmp_path, deltas), "weight")


def test_raw_spectra_are_all_singular_values(layer: Layer, deltas: list[Tensor]) -> None:
    found = layer_spectra(layer)
    assert [task.task for task in found.tasks] == ["task0", "task1", "task2"] and found.rank == RANK
    for task, delta in zip(found.tasks, deltas, strict=True):
        torch.testing.assert_close(task.raw, torch.linalg.svdvals(delta), atol=1e-5, rtol=1e-5)


def test_smoothing_keeps_the_sum_of_the_kept_values(layer: Layer) -> None:
    average, linear = layer_spectra(layer, smoothing="average"), layer_spectra(layer, smoothing="linear", rho=2.0)
    assert average.smoothing == "average" and linear.smoothing == "linear"
    for flat, sloped in zip(average.tasks, linear.tasks, strict=True):
        kept = flat.raw[:RANK]
        torch.testing.assert_close(flat.smoothed, kept.mean().expand(RANK), atol=1e-6, rtol=1e-5)
        assert sloped.smoothed.sum().item() == pytest.approx(kept.sum().item(), rel=1e-5)
        ratio = (sloped.smoothed[0] / sloped.smoothed[-1]).item()
        assert ratio == pytest.approx(min(2.0, (kept[0] / kept[-1]).item()), rel=1e-4)
        assert flat.smoothed_figures.effective_rank == pytest.approx(RANK, rel=1e-4)


def test_aligned_spectra_are_those_of_what_survives(layer: Layer) -> None:
    stages = layer_alignment(layer, keep=0.2).stages
    for place, task in enumerate(layer_spectra(layer, keep=0.2).tasks):
        wanted = torch.linalg.svdvals(stages.surviving[place])[:RANK]
        torch.testing.assert_close(task.aligned, wanted[: len(task.aligned)], atol=1e-5, rtol=1e-4)
        assert wanted[len(task.aligned) :].abs().sum() < 1e-6


def test_shares_of_energy_add_up(layer: Layer) -> None:
    found = layer_alignment(layer, keep=0.3)
    torch.testing.assert_close(found.energy.sum(dim=(1, 2)), torch.ones(TASKS, dtype=torch.float64))
    on_diagonal = torch.stack([torch.diagonal(found.energy[t]).sum() for t in range(TASKS)])
    for t in range(TASKS):
        assert 0 <= found.own_block_share[t] <= on_diagonal[t] + 1e-12
        assert found.surviving_share[t] <= min(found.kept_share[t], on_diagonal[t].item()) + 1e-6
    everything = layer_alignment(layer, keep=1.0)
    assert everything.kept_share == pytest.approx([1.0] * TASKS)
    assert everything.surviving_share == pytest.approx(on_diagonal.tolist(), rel=1e-4)
    assert layer_alignment(layer, keep=1.0, block_mask=False).surviving_share == pytest.approx([1.0] * TASKS)


def test_own_block_share_by_hand(layer: Layer) -> None:
    found = layer_alignment(layer)
    M = found.stages.aligned[1]
    own = M[RANK : 2 * RANK, RANK : 2 * RANK]
    assert found.own_block_share[1] == pytest.approx((own.square().sum() / M.square().sum()).item(), rel=1e-4)
    assert diagonal_blocks(TASKS, RANK).sum() == TASKS * RANK**2


def test_overlap_before_and_after_whitening(layer: Layer, deltas: list[Tensor]) -> None:
    found = layer_alignment(layer)
    U = [torch.linalg.svd(delta).U[:, :RANK] for delta in deltas]
    wanted = torch.tensor([[((a.T @ b) ** 2).sum() / RANK for b in U] for a in U])
    torch.testing.assert_close(found.before_U, wanted, atol=1e-5, rtol=1e-4)
    blocks = found.stages.basis.U.split(RANK, dim=1)
    wanted = torch.tensor([[((a.T @ b) ** 2).sum() / RANK for b in U] for a in blocks])
    torch.testing.assert_close(found.after_U, wanted, atol=1e-5, rtol=1e-4)
    joined = torch.cat([svd.V for svd in found.stages.truncated], dim=1)
    moved = (found.stages.basis.V - joined).norm().item() / math.sqrt(TASKS * RANK)
    assert found.whitening_distance[1] == pytest.approx(moved, rel=1e-5)


def test_experts_that_share_nothing_stay_where_they_are(tmp_path: Path) -> None:
    deltas = [torch.zeros(6, 6) for _ in range(3)]
    for t, delta in enumerate(deltas):
        delta[2 * t, 2 * t], delta[2 * t + 1, 2 * t + 1] = 3.0, 1.0
    found = layer_alignment(layer_of(layer_set(tmp_path, deltas), "weight"))
    torch.testing.assert_close(found.before_U, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.after_V, torch.eye(3), atol=1e-5, rtol=0)
    assert found.own_block_share == pytest.approx([1.0] * 3)
    assert found.whitening_distance == pytest.approx((0.0, 0.0), abs=1e-5)
    assert found.reconstruction == pytest.approx((0.0, 0.0, 0.0), abs=1e-5)


def test_a_matrix_too_small_for_all_tasks_has_spectra_but_no_basis(tmp_path: Path) -> None:
    layer = layer_of(layer_set(tmp_path, random_matrices(3, 8, 2)), "weight")
    found = layer_spectra(layer)
    assert found.rank == 0 and all(len(task.raw) == 2 and len(task.smoothed) == 0 for task in found.tasks)
    assert layer_alignment(layer) is None


def test_concentration_of_every_matrix(tmp_path: Path) -> None:
    deltas = random_deltas(2, seed=3)
    vectors, told = full_set(tmp_path, deltas), []
    found = concentration(vectors, progress=lambda share, name: told.append((share, name)))
    assert list(found.layers) == matrices(vectors)
    assert set(found.layers) == {name for name, shape in SHAPES.items() if len(shape) == 2} - {"text_projection"}
    assert found.share.shape == (2, len(found.layers)) and [name for _, name in told] == list(found.layers)
    s = torch.linalg.svdvals(deltas["task1"]["visual.mlp.c_fc.weight"]).square()
    share = found.share[1, found.layers.index("visual.mlp.c_fc.weight")]
    assert share.item() == pytest.approx((s[0] / s.sum()).item(), rel=1e-4)


def test_concentration_is_that_of_the_whole_spectrum_whether_or_not_it_is_known(tmp_path: Path) -> None:
    deltas = [*random_matrices(2, 48, 40, seed=4), torch.zeros(48, 40)]
    few, many = layer_set(tmp_path / "few", deltas), layer_set(tmp_path / "many", deltas * 8)  # 2 of 40 lead; 13 are kept, or 1
    for vectors in (few, many):
        share = concentration(vectors).share[:, 0]
        for found, delta in zip(share[:2].tolist(), deltas, strict=False):
            energy = torch.linalg.svdvals(delta).square()
            assert found == pytest.approx((energy[:2].sum() / energy.sum()).item(), rel=1e-5)
        assert share[2] == 0


def test_a_lone_expert_agrees_with_itself(tmp_path: Path) -> None:
    (delta,) = random_matrices(1, 9, 7)
    found = consistency(layer_set(tmp_path, [delta]), {"weight": delta})
    assert found.layers == ("weight",) and set(found.measures) == set(MEASURES)
    for measure, table in found.measures.items():
        assert table.shape == (1, 1)
        assert table.item() == pytest.approx(1.0, abs=2e-3), measure


def test_consistency_is_cancelled_between_matrices(layer: Layer, deltas: list[Tensor]) -> None:
    with pytest.raises(Cancelled):
        consistency(layer.vectors, {"weight": deltas[0]}, cancelled=lambda: True)


def test_cosine_of_a_sum_of_orthogonal_deltas(tmp_path: Path) -> None:
    deltas = [torch.zeros(4, 4), torch.zeros(4, 4)]
    deltas[0][0, 0], deltas[1][1, 1] = 3.0, 4.0
    found = consistency(layer_set(tmp_path, deltas), {"weight": deltas[0] + deltas[1]})
    assert found.measures["Cosine"][:, 0].tolist() == pytest.approx([0.6, 0.8])


def test_adapters_with_other_targets_and_ranks_are_drawn(tmp_path: Path) -> None:
    whole, part = random_factors(0), random_factors(1, 3)
    del part["mlp.fc1.weight"]
    vectors = lora_set(tmp_path, {"whole": whole, "part": part})
    lengths = [len(task.raw) for task in layer_spectra(layer_of(vectors, "mlp.fc1.weight")).tasks]
    assert lengths == [2, 0]
    seen = layer_alignment(layer_of(vectors, "mlp.fc1.weight"))
    assert seen.kept_share[1] == 0 and torch.isfinite(seen.energy).all()
    measured = consistency(vectors, dict(merged_deltas(vectors, "dc_merge")))
    assert all(torch.isfinite(values).all() for values in measured.measures.values())
    assert concentration(vectors).share.shape == (2, 2)
