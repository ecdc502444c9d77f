"""CAT Merging: what is cut from a task vector because it disturbs others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge.evaluation import Bench
from dcmerge.methods.cat import cat, norm_conflicts, removal_bases, top_positive, trimmed
from tests.builders import random_matrices, relative_error, tiny_bench
from tests.methods.builders import grams, merged_on, solved, tokens

DELTAS = torch.stack(random_matrices(3, 8, 6)).double()
INPUTS = tokens(3, 12, 6)
NOTHING = {"directions": 0, "channels": 0}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"), tasks=3)


def gain(k: int, B: Tensor, loss: float) -> float:
    """Conflict removed from the features of task k, minus λ times the knowledge that the others lose."""
    value = 0.0
    for i in {0, 1, 2} - {k}:
        value += (INPUTS[k] @ DELTAS[i].T @ B).square().sum().item()
        value -= loss * (INPUTS[i] @ DELTAS[i].T @ B).square().sum().item()
    return value


def conflict(k: int, loss: float) -> Tensor:
    G = grams(INPUTS)
    return sum(DELTAS[i] @ (G[k] - loss * G[i]) @ DELTAS[i].T for i in {0, 1, 2} - {k})


@pytest.mark.parametrize(("directions", "loss"), [(1, 0.0), (3, 0.0), (2, 0.5), (8, 0.8)])
def test_the_directions_are_orthonormal_and_the_best_there_are(directions: int, loss: float) -> None:
    draw = torch.Generator().manual_seed(0)
    for k, B in enumerate(removal_bases(DELTAS, grams(INPUTS), loss, directions)):
        assert 0 < B.shape[1] <= directions
        torch.testing.assert_close(B.T @ B, torch.eye(B.shape[1], dtype=B.dtype))
        leading = torch.linalg.eigvalsh(conflict(k, loss)).flip(0)[:directions]
        assert gain(k, B, loss) == pytest.approx(leading.clamp_min(0).sum().item())
        for _ in range(20):
            other = torch.linalg.qr(torch.randn(8, directions, generator=draw, dtype=B.dtype)).Q
            assert gain(k, other, loss) <= gain(k, B, loss) + 1e-9


def test_a_cut_leaves_nothing_in_its_directions_and_is_made_once() -> None:
    D = DELTAS[:2]
    bases = removal_bases(D, grams(INPUTS[:2]), 0.0, 2)
    cuts = [lambda tau, B=B: tau - B @ (B.T @ tau) for B in bases]
    once = trimmed(D, cuts, rescale=False)
    assert (bases[1].T @ once[0]).norm() < 1e-12 and (bases[0].T @ once[1]).norm() < 1e-12
    torch.testing.assert_close(trimmed(once, cuts, rescale=False), once)
    assert (once.flatten(1).norm(dim=1) < D.flatten(1).norm(dim=1)).all()


def test_worked_by_hand(tmp_path: Path) -> None:
    """The first vector answers input 1, which only the second task sees, at output 1: that is cut. Its own stays."""
    first, second = torch.diag(torch.tensor([1.0, 1, 0])), torch.diag(torch.tensor([0.0, 0, 1]))
    x1, x2, x3 = torch.eye(3).double()
    inputs = [x2[None], torch.stack([x1, x3])]
    found = solved(tmp_path / "1", cat, [first, second], inputs, directions=2)
    torch.testing.assert_close(found, torch.diag(torch.tensor([0.0, 1, 1])).double())
    # Where task 1 sees input 1 too, more than half as often, λ = 2 keeps the answer.
    inputs[0] = torch.stack([x1, x2])
    kept = solved(tmp_path / "2", cat, [first, second], inputs, directions=2, loss=2.0)
    torch.testing.assert_close(kept, (first + second).double())


def test_without_directions_and_channels_it_is_task_arithmetic(bench: Bench) -> None:
    merged, wanted = merged_on(bench, "cat", NOTHING), merged_on(bench, "task_arithmetic")
    assert all(relative_error(merged[name], wanted[name]) < 1e-6 for name in wanted)
    cut = merged_on(bench, "cat", {"loss": 0.0, "norm_loss": 0.0})
    assert {name for name in wanted if relative_error(cut[name], wanted[name]) > 1e-3} == {
        name for name in wanted if "embedding" not in name
    }


def test_one_task_is_left_as_it_is(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path, tasks=1)
    for name, delta in merged_on(bench, "cat", {"loss": 0.0, "norm_loss": 0.0}).items():
        torch.testing.assert_close(delta, bench.vectors.delta(name, "task0"))


@pytest.mark.parametrize(("rows", "seen"), [(4, 6), (8, 6), (24, 6), (8, 3), (24, 2)])
@pytest.mark.parametrize("loss", [1e2, 1e6])
def test_if_losing_knowledge_weighs_much_nothing_is_cut(tmp_path: Path, rows: int, seen: int, loss: float) -> None:
    """Nor are directions that rounding alone makes look harmful: those without answers, or for inputs that nobody shows."""
    deltas = random_matrices(3, rows, 6)
    inputs = [X @ torch.linalg.qr(INPUTS[0].T).Q[:, :seen].T for X in tokens(3, 30, seen)]
    assert all(B.shape[1] == 0 for B in removal_bases(torch.stack(deltas).double(), grams(inputs), loss, 100))
    found = solved(tmp_path, cat, deltas, inputs, directions=100, loss=loss)
    torch.testing.assert_close(found, sum(D.double() for D in deltas))


def test_norms_are_kept_on_request() -> None:
    cuts = [lambda tau, k=k: tau * (torch.arange(8) != k)[:, None] for k in range(3)]
    found = trimmed(DELTAS, cuts, rescale=True)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), DELTAS.flatten(1).norm(dim=1))
    assert not found[0][1:3].any() and found[0][0].any()
    assert not trimmed(DELTAS, [torch.zeros_like] * 3, rescale=True).any()


def test_the_conflict_of_a_norm_worked_by_hand() -> None:
    D, squares = torch.tensor([[1.0, 2], [3, 1], [0, 1]]), torch.tensor([[1.0, 0], [2, 1], [4, 5]])
    # Task 0, channel 0: task 1 gives (1 − 0.1 · 2) · 9, task 2 nothing.
    assert norm_conflicts(D, squares, 0.1)[0].tolist() == pytest.approx([7.2, (0 - 0.1) * 1 + (0 - 0.5) * 1])


def test_only_the_largest_positive_scores_are_masked() -> None:
    scores = torch.tensor([[1.0, -1, 3, 2], [-1, -2, 0, 1]])
    assert top_positive(scores, 2).int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
    assert not top_positive(scores, 0).any() and top_positive(scores, 9).sum() == 4


def test_channels_of_norms_and_biases_worked_by_hand(tmp_path: Path) -> None:
    """Each task masks the one channel of the others that disturbs it most."""
    deltas = [torch.tensor([1.0, 5, 2]), torch.tensor([7.0, 1, 3])]
    seen = [torch.ones(1, 3).double()] * 2
    bias = solved(tmp_path / "bias", cat, deltas, seen, name="ln.bias", channels=1)
    norm = solved(tmp_path / "norm", cat, deltas, seen, name="ln.weight", channels=1, norm_loss=0.0)
    assert bias.tolist() == norm.tolist() == [1, 1, 5]
