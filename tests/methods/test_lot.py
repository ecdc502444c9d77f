"""LOT Merging: the least feature drift, in closed form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge.evaluation import Bench
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.lot import lot
from dcmerge.methods.regmean import regmean
from tests.builders import random_matrices, relative_error, tiny_bench
from tests.methods.builders import grams, merged_on, solved, tokens

DELTAS = random_matrices(3, 8, 6)
#: Enough tokens for every direction, or two a task: four directions in all where there are two tasks.
FULL, FEW = 40, 2
every_rank = pytest.mark.parametrize("count", [FULL, FEW])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def drift(T: Tensor, deltas: list[Tensor], inputs: list[Tensor]) -> float:
    """Σ ‖X (T − D)ᵀ‖²: how far all features move away from the experts'."""
    return sum((X @ (T - D.double()).T).square().sum().item() for D, X in zip(deltas, inputs, strict=True))


def seen_directions(inputs: list[Tensor]) -> Tensor:
    """The projector on everything that some task shows."""
    Q = torch.linalg.svd(torch.cat(inputs), full_matrices=False)
    V = Q.Vh[1e-9 * Q.S[0] < Q.S]
    return V.T @ V


@pytest.mark.parametrize(("count", "tasks"), [(FULL, 3), (FEW, 2), (1, 3)])
def test_the_gradient_is_zero(tmp_path: Path, count: int, tasks: int) -> None:
    deltas, inputs = DELTAS[:tasks], tokens(tasks, count, 6)
    T = solved(tmp_path, lot, deltas, inputs)
    G = grams(inputs)
    gradient = sum((T - D.double()) @ G[k] for k, D in enumerate(deltas))
    assert gradient.norm() < 1e-9 * (deltas[0].double() @ G[0]).norm()


@every_rank
def test_of_one_task_the_features_come_back_and_the_weights_where_all_is_seen(tmp_path: Path, count: int) -> None:
    inputs = tokens(1, count, 6)
    T, D = solved(tmp_path, lot, DELTAS[:1], inputs), DELTAS[0].double()
    torch.testing.assert_close(inputs[0] @ T.T, inputs[0] @ D.T)
    torch.testing.assert_close(T, D @ seen_directions(inputs))
    assert torch.allclose(T, D) == (count == FULL)


@every_rank
def test_identical_experts_come_back_where_something_is_seen(tmp_path: Path, count: int) -> None:
    inputs = tokens(2, count, 6)
    T = solved(tmp_path, lot, [DELTAS[0], DELTAS[0]], inputs)
    torch.testing.assert_close(T, DELTAS[0].double() @ seen_directions(inputs))
    assert torch.allclose(T, DELTAS[0].double()) == (count == FULL)


@every_rank
def test_no_mean_no_sum_and_no_expert_drifts_less(tmp_path: Path, count: int) -> None:
    inputs, deltas = tokens(3, count, 6), [D.double() for D in DELTAS]
    least = drift(solved(tmp_path, lot, DELTAS, inputs), DELTAS, inputs)
    others = [sum(deltas) / 3, *(scale * sum(deltas) for scale in (0.3, 0.5, 1.0)), *deltas, torch.zeros(8, 6).double()]
    assert all(least < drift(T, DELTAS, inputs) for T in others)


def test_tasks_with_orthogonal_inputs_do_not_drift(tmp_path: Path) -> None:
    Q = torch.linalg.qr(tokens(1, 6, 6)[0]).Q
    inputs = [tokens(1, 9, 3, 1)[0] @ Q[:3], tokens(1, 9, 2, 2)[0] @ Q[3:5]]
    T = solved(tmp_path, lot, DELTAS[:2], inputs)
    assert drift(T, DELTAS[:2], inputs) < 1e-20
    own = [DELTAS[0].double() @ Q[:3].T @ Q[:3], DELTAS[1].double() @ Q[3:5].T @ Q[3:5]]
    torch.testing.assert_close(T, sum(own))


@every_rank
def test_the_size_and_the_number_of_inputs_do_not_matter(tmp_path: Path, count: int) -> None:
    inputs = tokens(2, count, 6)
    T = solved(tmp_path / "once", lot, DELTAS[:2], inputs)
    torch.testing.assert_close(solved(tmp_path / "large", lot, DELTAS[:2], [300 * X for X in inputs]), T)
    torch.testing.assert_close(solved(tmp_path / "twice", lot, DELTAS[:2], [torch.cat([X, X]) for X in inputs]), T)


@every_rank
def test_regmean_is_lot_and_what_of_the_base_is_seen(tmp_path: Path, count: int) -> None:
    inputs, base = tokens(2, count, 6), random_matrices(1, 8, 6, 7)[0]
    T = solved(tmp_path / "lot", lot, DELTAS[:2], inputs, base)
    W = base.double() + solved(tmp_path / "regmean", regmean, DELTAS[:2], inputs, base, off_diagonal=1.0)
    torch.testing.assert_close(W - T, base.double() @ seen_directions(inputs), rtol=1e-5, atol=1e-6)


def test_inputs_that_are_all_zero_leave_the_base(tmp_path: Path) -> None:
    T = solved(tmp_path, lot, DELTAS[:2], [torch.zeros(5, 6).double()] * 2)
    assert T.shape == (8, 6) and not T.any()


def test_the_scale_of_a_norm_is_the_mean_weighted_by_its_inputs(tmp_path: Path) -> None:
    deltas = [torch.tensor([1.0, 1, 1, 2]), torch.tensor([5.0, 5, 5, 2])]
    inputs = [torch.tensor([[1.0, 0, 1, 7]]).double(), torch.tensor([[1.0, 2, 0, 1], [1, 0, 0, 1], [1, 0, 0, 1]]).double()]
    assert solved(tmp_path / "hand", lot, deltas, inputs).tolist() == [4, 5, 1, 2]
    deltas = [random_matrices(1, 1, 50, seed)[0][0] for seed in range(3)]
    T = solved(tmp_path / "hull", lot, deltas, tokens(3, 4, 50))
    low, high = torch.stack(deltas).double().aminmax(dim=0)
    assert (low <= T).all() and (high >= T).all()


def test_every_linear_layer_of_a_tower_is_at_its_minimum(bench: Bench) -> None:
    """The patch embedding as a matrix of pixels, the final projection stored the other way round."""
    seen = Calibration(bench).inputs_of_experts(10, seed=2)
    merged = merged_on(bench, "lot", {"exemplars": 10, "seed": 2}, dtype=torch.float64)
    for name in seen["task0"].grams:
        gradient, size = 0, 0
        for task in bench.tasks:
            G, delta = seen[task].grams[name], bench.vectors.delta(name, task).double()
            for sign, T in ((1, merged[name]), (-1, delta)):
                part = G @ T if name == "visual.proj" else T.flatten(1) @ G
                gradient, size = gradient + sign * part, max(size, part.norm())
        assert gradient.norm() < 1e-6 * size, name


def test_biases_and_whatever_sees_no_input_are_averaged(bench: Bench) -> None:
    merged, mean = merged_on(bench, "lot"), merged_on(bench, "average")
    for name in ("visual.ln_post.bias", "visual.class_embedding", "visual.positional_embedding"):
        assert torch.equal(merged[name], mean[name])
    assert relative_error(merged["visual.ln_post.weight"], mean["visual.ln_post.weight"]) > 1e-3
