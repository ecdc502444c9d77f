"""AdaRank: which singular components of every task vector are kept, and with which coefficient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import TaskVectors
from dcmerge.evaluation import Bench
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.adaptation import entropy, stepped
from dcmerge.methods.adarank import Components, _Problem, _problem, _svd, first_logits, hard_mask
from dcmerge.vectors.layers import Layer
from tests.builders import full_set, random_deltas, random_matrices, relative_error, tiny_bench
from tests.methods.builders import entropy_gradients, first_step, merged_on

MATRIX = "visual.transformer.resblocks.1.mlp.c_fc.weight"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def problem_of(vectors: TaskVectors, origin: str = "task_arithmetic") -> _Problem:
    return _problem([Layer(vectors, parameter) for parameter in vectors.parameters.values()], origin)


def merged(problem: _Problem, logits: dict[str, Tensor], scale: float = 0.3) -> dict[str, Tensor]:
    tasks = len(next(iter(problem.others.values())))
    return problem.deltas({n: hard_mask(x) for n, x in logits.items()}, torch.full((len(problem.names), tasks), scale))


def kept(problem: _Problem, share: float = 1.0) -> dict[str, Tensor]:
    return {name: first_logits(c.s, share) for name, c in problem.matrices.items()}


# The mask


def test_the_mask_is_0_or_1_and_its_gradient_that_of_the_sigmoid() -> None:
    logits = torch.tensor([-40.0, -0.1, 0.0, 0.1, 40.0], requires_grad=True)
    mask = hard_mask(logits)
    assert mask.tolist() == [0, 0, 0, 1, 1]
    mask.sum().backward()
    p = torch.sigmoid(logits.detach() / 10)
    torch.testing.assert_close(logits.grad, p * (1 - p) / 10)


def test_the_first_mask_keeps_the_leading_share() -> None:
    found = first_logits(torch.ones(2, 8), 0.25)
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.1, *[-0.1] * 6]] * 2))
    assert (first_logits(torch.ones(2, 8), 1.0) > 0).all() and (first_logits(torch.ones(2, 8), 0.0) < 0).all()


def test_components_side_by_side_rebuild_every_matrix() -> None:
    A, B = random_matrices(2, 8, 6)
    both = Components.of([_svd(A), _svd(B)])
    torch.testing.assert_close(both.combined(both.s), A + B)
    torch.testing.assert_close(both.combined(torch.tensor([[2.0], [0.0]]) * both.s), 2 * A)


# Without steps


def test_with_everything_kept_it_is_task_arithmetic(bench: Bench) -> None:
    found = merged_on(bench, "adarank", {"iterations": 0, "start": 0.3})
    for name, total in merged_on(bench, "task_arithmetic").items():
        assert relative_error(found[name], 0.3 * total) < 1e-5


def test_one_task_with_a_coefficient_of_one_is_the_expert(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path, tasks=1)
    for name, delta in merged_on(bench, "adarank", {"iterations": 0, "start": 1.0}).items():
        assert relative_error(delta, bench.vectors.delta(name, "task0")) < 1e-5


def test_around_the_mean_equal_coefficients_of_everything_return_the_mean(bench: Bench) -> None:
    found = merged_on(bench, "adarank", {"iterations": 0, "origin": "cart", "share": 1.0})
    for name, mean in merged_on(bench, "average").items():
        assert relative_error(found[name], mean) < 1e-5


def test_around_the_mean_a_sixth_of_the_components_is_added_2_3_times(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path, tasks=3)
    D = torch.stack([bench.vectors.delta(MATRIX, task) for task in bench.tasks])
    found = merged_on(bench, "adarank", {"iterations": 0, "origin": "cart"})[MATRIX]
    wanted = D.mean(dim=0)
    for U, s, Vt in (torch.linalg.svd(delta - D.mean(dim=0), full_matrices=False) for delta in D):
        wanted = wanted + 2.3 * (U[:, :3] * s[:3]) @ Vt[:3]  # 0.16 of 16 components, rounded
    assert relative_error(found, wanted) < 1e-5


def test_decorrelated_and_with_everything_kept_it_is_tsv_m(bench: Bench) -> None:
    found = merged_on(bench, "adarank", {"iterations": 0, "origin": "tsv_m", "start": 0.7})
    for name, delta in merged_on(bench, "tsv_m").items():
        assert relative_error(found[name], 0.7 * delta) < 1e-5, name


def test_where_no_component_a_task_fits_it_takes_the_mean_as_tsv_m_does(tmp_path: Path) -> None:
    vectors = full_set(tmp_path, random_deltas(3, shapes={"attn.weight": (2, 9), "attn.bias": (2,)}))
    problem = problem_of(vectors, "tsv_m")
    found = merged(problem, kept(problem), 1.0)["attn.weight"]
    torch.testing.assert_close(found, sum(vectors.deltas("attn.weight")) / 3)


@pytest.mark.parametrize("origin", ["task_arithmetic", "cart", "tsv_m"])
def test_only_matrices_of_attention_and_of_the_perceptron_have_masks(bench: Bench, origin: str) -> None:
    problem = problem_of(bench.vectors, origin)
    blocks = [f"visual.transformer.resblocks.{b}." for b in (0, 1)]
    parts = ["attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"]
    assert set(problem.matrices) == {block + part for block in blocks for part in parts}
    assert set(problem.names) == set(bench.vectors.parameters)


def test_a_smaller_share_keeps_the_leading_components(bench: Bench) -> None:
    found = merged_on(bench, "adarank", {"iterations": 0, "start": 0.3, "share": 0.25})[MATRIX]
    D = [torch.linalg.svd(bench.vectors.delta(MATRIX, task), full_matrices=False) for task in bench.tasks]
    assert relative_error(found, 0.3 * sum((U[:, :4] * s[:4]) @ Vt[:4] for U, s, Vt in D)) < 1e-5


# Learning


def test_one_logit_across_the_threshold_changes_the_weight_by_its_component(bench: Bench) -> None:
    problem = problem_of(bench.vectors)
    logits = kept(problem)
    before = merged(problem, logits)
    logits[MATRIX][1, 3] = -0.1
    after = merged(problem, logits)
    U, s, Vt = torch.linalg.svd(bench.vectors.delta(MATRIX, "task1"), full_matrices=False)
    torch.testing.assert_close(before[MATRIX] - after[MATRIX], 0.3 * s[3] * torch.outer(U[:, 3], Vt[3]), atol=1e-6, rtol=1e-4)
    assert all(torch.equal(after[name], before[name]) for name in before if name != MATRIX)


def gradients(bench: Bench, problem: _Problem, images: dict[str, Tensor]) -> dict[str, Tensor]:
    """∂L/∂b = uᵀ (∂L/∂W) v · λ s σ'(b / T) / T of every component where all are kept and λ = 0.3."""
    G = entropy_gradients(bench, merged(problem, kept(problem)), images)
    p = torch.sigmoid(torch.tensor(0.01))
    return {
        name: ((c.U * (G[name] @ c.V)).sum(dim=0).unflatten(0, c.s.shape) * 0.3 * c.s * p * (1 - p) / 10)
        for name, c in problem.matrices.items()
    }


def test_the_gradient_of_a_logit_is_that_of_its_component(bench: Bench) -> None:
    problem, images = problem_of(bench.vectors), next(Calibration(bench).batches(15))
    logits = {name: x.requires_grad_() for name, x in kept(problem).items()}
    entropy(Calibration(bench), stepped(bench.base_weights(), merged(problem, logits)), images).backward()
    for name, wanted in gradients(bench, problem, images).items():
        assert relative_error(logits[name].grad, wanted) < 1e-3


def test_the_gradient_is_that_of_the_soft_mask_at_the_same_weights(bench: Bench) -> None:
    """Finite differences: the loss at base + Σ λ U diag((1 + σ(b') − σ(b)) ∘ s) Vᵀ, b' along the gradient."""
    problem, images = problem_of(bench.vectors), next(Calibration(bench).batches(15))
    wanted = gradients(bench, problem, images)
    length = torch.cat([g.flatten() for g in wanted.values()]).norm()
    table, ends = torch.full((len(problem.names), 2), 0.3), []
    for sign in (1, -1):
        values = {
            name: 1 + torch.sigmoid((0.1 + sign * 0.05 * g / length) / 10) - torch.sigmoid(torch.tensor(0.01))
            for name, g in wanted.items()
        }
        weights = stepped(bench.base_weights(), problem.deltas(values, table))
        ends.append(entropy(Calibration(bench), weights, images).item())
    assert (ends[0] - ends[1]) / 0.1 == pytest.approx(length.item(), rel=2e-2)


def test_one_large_step_drops_what_raises_the_entropy_and_moves_every_coefficient(bench: Bench) -> None:
    problem, images = problem_of(bench.vectors), next(Calibration(bench).batches(15))
    logits = {name: 0.1 + first_step(g, 0.2) for name, g in gradients(bench, problem, images).items()}
    G = entropy_gradients(bench, merged(problem, kept(problem)), images)
    stacks = {name: torch.stack(bench.vectors.deltas(name)) for name in problem.names}
    table = torch.stack([0.3 + first_step((stacks[n] * G[n]).flatten(1).sum(dim=1), 0.2) for n in problem.names])
    wanted = problem.deltas({name: (x > 0).float() for name, x in logits.items()}, table)
    found = merged_on(bench, "adarank", {"iterations": 1, "start": 0.3, "learning_rate": 0.2, "batch": 15})
    assert 0.2 < (logits[MATRIX] > 0).float().mean() < 0.8
    for name, delta in wanted.items():
        assert relative_error(found[name], delta) < 1e-3, name


def test_few_small_steps_change_no_mask(bench: Bench) -> None:
    """A logit starts 0.1 from the threshold, so nine steps of 0.01 leave it on its side: every rank stays full."""
    found = merged_on(bench, "adarank", {"iterations": 9, "start": 0.3, "share": 0.25})
    ranks = {name: int(torch.linalg.matrix_rank(found[name], rtol=1e-5)) for name in problem_of(bench.vectors).matrices}
    assert set(ranks.values()) == {8}  # a quarter of 16 components of two tasks
