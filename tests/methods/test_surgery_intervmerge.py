"""What tasks add to a merged model that is left as it is: corrections of its embeddings, and interventions on their way."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dcmerge.evaluation import Bench, TaskModule, choose_scale
from dcmerge.evaluation.calibration import Calibration, generator_of
from dcmerge.methods import merged_deltas, planned
from dcmerge.methods.intervmerge import _all_tasks, _created, _on_class_token, _one_task, noreft, shift
from dcmerge.methods.loop import Plan
from dcmerge.methods.repaired import ORIGINS, distance_to_teachers, scaled_merge
from dcmerge.methods.surgery import first_adapter, operated
from tests.builders import tiny_bench
from tests.methods.builders import merged_on

both = pytest.mark.parametrize("slug", ["surgery", "intervmerge"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def trained(bench: Bench, slug: str, iterations: int, **parameters: Any) -> Plan:
    how = {"merged_scale": 0.3, "batch": 15, "iterations": iterations, **parameters}
    return planned(bench.vectors, slug, how, bench=bench)


def merged_weights(bench: Bench, plan: Plan) -> dict[str, Tensor]:
    return bench.merged_weights({layer.name: plan.delta(layer) for layer in plan.layers}, 1.0)


def distance(bench: Bench, weights: Mapping[str, Tensor], task: str, module: TaskModule | None = None) -> float:
    """mean |z − z of the expert| over a task's validation images, z with what the task adds."""
    module = module or TaskModule()
    images = bench.split(task, "val", None).images
    z = bench.encoder.forward(weights, images, module.edits)
    z = module.repair(z) if module.repair else z
    return (z - bench.encoder.forward(bench.expert_weights(task), images)).abs().mean().item()


# What is repaired


@both
def test_the_merge_itself_is_another_methods_at_its_scale(bench: Bench, slug: str) -> None:
    plan, wanted = trained(bench, slug, 2), merged_on(bench, "task_arithmetic")
    assert all(torch.equal(plan.delta(layer), 0.3 * wanted[layer.name]) for layer in plan.layers)


@pytest.mark.parametrize("origin", ORIGINS)
def test_every_origin_comes_with_its_own_scale(bench: Bench, origin: str) -> None:
    layers = planned(bench.vectors, "average").layers
    merged = dict(merged_deltas(bench.vectors, origin, bench=bench))
    own = {"average", "adamerging"}  # whose α is not searched
    scale = 1.0 if origin in own else choose_scale(bench, merged, limit=100).value
    for name, delta in scaled_merge(layers, Calibration(bench), origin, None).items():
        torch.testing.assert_close(delta, scale * merged[name])


def test_the_distance_to_the_teachers_worked_by_hand() -> None:
    students = {"a": torch.tensor([[0.0, 0], [1, 1]]), "b": torch.tensor([[5.0, 5]])}
    teachers = {"a": torch.tensor([[9.0, 9], [2, -2]]), "b": torch.tensor([[5.0, 4]])}
    picks = {"a": torch.tensor([1]), "b": torch.tensor([0])}
    assert distance_to_teachers(lambda t, pick: students[t][pick], teachers, picks).item() == 2 + 0.5


# Surgery


def test_an_operation_worked_by_hand() -> None:
    z, down, up = torch.tensor([[1.0, 2], [-1, 0]]), torch.tensor([[1.0, 1], [1, -1]]), torch.tensor([[1.0, 5], [2, 5]])
    # W_down z is (3, −1) and (−1, −1): only the first survives the ReLU.
    assert operated(z, down, up).tolist() == [[1 - 3, 2 - 6], [-1, 0]]


def test_the_first_adapter_is_drawn_in_its_range_and_changes_nothing() -> None:
    down, up = first_adapter(64, 16, seeded())
    assert down.shape == (16, 64) and up.shape == (64, 16) and not up.any()
    assert 0.12 < down.abs().max() <= 1 / 8 and abs(down.mean()) < 0.01
    z = torch.randn(5, 64, generator=seeded())
    assert torch.equal(operated(z, down, up), z)


def test_without_steps_the_embeddings_stay(bench: Bench) -> None:
    z = torch.randn(5, 8, generator=seeded())
    modules = trained(bench, "surgery", 0).modules()
    assert modules.keys() == set(bench.tasks)
    assert all(torch.equal(module.repair(z), z) and not module.edits for module in modules.values())


def test_an_embedding_that_is_the_teachers_gives_no_gradient() -> None:
    z, (down, up) = torch.randn(9, 8, generator=seeded()), first_adapter(8, 4, seeded())
    parts = [down.requires_grad_(), up.requires_grad_()]
    picks = {"a": torch.arange(9)}
    loss = distance_to_teachers(lambda t, pick: operated(z[pick], *parts), {"a": z}, picks)
    loss.backward()
    assert loss.item() == 0 and not any(part.grad.any() for part in parts)


def test_the_expert_itself_needs_no_surgery(tmp_path: Path) -> None:
    plan = trained(tiny_bench(tmp_path, tasks=1), "surgery", 3, merged_scale=1.0)
    assert plan.curve == (0, 0, 0)
    z = torch.randn(5, 8, generator=seeded())
    assert torch.equal(plan.modules()["task0"].repair(z), z)


def test_the_first_step_moves_the_upper_matrix_alone_and_against_its_gradient(bench: Bench) -> None:
    """At W_up = 0: ∂L/∂W_up = −Σ sign(z − teacher) ReLU(W_down z)ᵀ / (N d), and no gradient for W_down."""
    plan, calibration = trained(bench, "surgery", 1, learning_rate=0.5), Calibration(bench)
    for task, module in plan.modules().items():
        down = first_adapter(8, 16, generator_of(task, 0))[0]
        z = calibration.embeddings(merged_weights(bench, plan), task)
        gradient = -(z - calibration.embeddings_of_expert(task)).sign().T @ torch.relu(z @ down.T) / z.numel()
        assert torch.equal(module.repair.keywords["down"], down)
        moved = gradient.abs() > 1e-5
        torch.testing.assert_close(module.repair.keywords["up"][moved], -0.5 * gradient.sign()[moved], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("rank", "size"), [(16, 2 * 16 * 8), (3, 2 * 3 * 8)])
def test_an_adapter_has_two_matrices_of_its_rank(bench: Bench, rank: int, size: int) -> None:
    assert {module.size for module in trained(bench, "surgery", 0, rank=rank).modules().values()} == {size}


# Interventions


def test_an_intervention_worked_by_hand() -> None:
    """W1 h + c1 − W2 h − c2 is 1 + 2 + 5 − 2 − 1 = 5, which W2ᵀ brings to both channels of h."""
    h, W1, W2 = torch.tensor([[1.0, 2]]), torch.tensor([[1.0, 1]]), torch.tensor([[2.0, 0]])
    assert noreft(h, W1, W2, torch.tensor([5.0]), torch.tensor([1.0])).tolist() == [[5 * 2, 0]]


def test_equal_halves_change_nothing() -> None:
    h, W, c = randn(7, 12), randn(3, 12, seed=1), randn(3, seed=2)
    assert not noreft(h, W, W, c, c).any()
    assert not noreft(h, W, torch.zeros_like(W), c, 0 * c).any()  # nor does a way back that leads nowhere


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_what_is_added_has_at_most_the_rank(rank: int) -> None:
    parts = randn(rank, 12, seed=1), randn(rank, 12, seed=2), randn(rank, seed=3), randn(rank, seed=4)
    assert torch.linalg.matrix_rank(noreft(randn(30, 12), *parts)) == rank


def test_a_shift_is_the_same_for_every_token_and_stays_in_its_channels() -> None:
    R, c = randn(4, 2, seed=1), randn(2, seed=2)
    added = shift(randn(5, 12), R, c, 3)
    assert added.shape == (5, 12) and torch.equal(added, added[:1].expand(5, 12))
    assert not added[:, :3].any() and not added[:, 7:].any() and added[:, 3:7].all()
    assert torch.linalg.norm(added[0]).item() == pytest.approx(c.norm().item())  # R keeps lengths
    assert not shift(randn(5, 12), R, 0 * c, 3).any()


def test_the_directions_of_a_shift_are_orthonormal_and_span_the_matrix() -> None:
    R = randn(4, 2, seed=1)
    Q = torch.stack([shift(torch.zeros(1, 4), R, one, 0)[0] for one in torch.eye(2, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(Q.T @ Q, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(Q @ Q.T @ R, R)


def test_only_the_class_token_changes() -> None:
    output = randn(6, 5, 12)
    found = _on_class_token(output, lambda h: h + 1)
    assert torch.equal(found[:, 1:], output[:, 1:]) and torch.equal(found[:, 0], output[:, 0] + (output[:, 0] + 1))


@pytest.mark.parametrize("variant", ["noreft", "mini"])
def test_all_tasks_side_by_side_are_each_task_by_itself(variant: str) -> None:
    (block,) = _created(variant, 1, 3, 12, 2, 4, seeded())
    block = type(block)(tuple(part + 0.1 for part in block.parts), block.added)  # a shift begins at 0
    output = torch.randn(6, 5, 12, generator=seeded(1))
    own = [_one_task(block, t, output[2 * t : 2 * t + 2]) for t in range(3)]
    torch.testing.assert_close(_all_tasks(block, 3, output), torch.cat(own))
    assert not torch.allclose(_one_task(block, 0, output), _one_task(block, 1, output))


@pytest.mark.parametrize(("variant", "size"), [("noreft", 18_456), ("mini", 780)])
def test_a_task_of_vit_b_has_as_many_values_as_the_paper_says(variant: str, size: int) -> None:
    blocks = _created(variant, 12, 2, 768, 1, 64, seeded())
    assert sum(part[0].numel() for block in blocks for part in block.parts) == size


@pytest.mark.parametrize(("variant", "size"), [("noreft", 2 * (2 * 16 + 2)), ("mini", 2 * (4 * 1 + 1))])
def test_a_tasks_module_counts_its_values(bench: Bench, variant: str, size: int) -> None:
    modules = trained(bench, "intervmerge", 0, variant=variant, channels=4).modules()
    assert {module.size for module in modules.values()} == {size}
    assert all(len(module.edits) == 2 and module.repair is None for module in modules.values())


def test_every_block_shifts_other_channels_until_they_are_used_up() -> None:
    blocks = _created("mini", 13, 1, 768, 1, 64, seeded())
    starts = [block.added.keywords["start"] for block in blocks]
    assert starts[:12] == [64 * b for b in range(11)] + [704] and all(0 <= start <= 704 for start in starts)
    assert [b.added.keywords["start"] for b in _created("mini", 2, 1, 8, 1, 64, seeded())] == [0, 0]


def test_only_the_class_tokens_row_changes_at_the_first_intervened_block(bench: Bench) -> None:
    plan = trained(bench, "intervmerge", 0)
    weights, edits = merged_weights(bench, plan), plan.modules()["task0"].edits
    images = bench.split("task0", "val", None).images
    place = "transformer.resblocks.0.ls_1"
    before, after = (bench.encoder.block_features(weights, images, edits=e)[0] for e in ({}, {place: edits[place]}))
    torch.testing.assert_close(after[:, 1:], before[:, 1:])
    assert ((after[:, 0] - before[:, 0]).norm(dim=-1) > 1e-3).all()


def test_an_intervention_that_is_the_identity_leaves_the_embedding(bench: Bench) -> None:
    weights, images = bench.expert_weights("task0"), bench.split("task0", "val", None).images
    block = _created("noreft", 1, 1, 16, 2, 4, seeded())[0]
    W, _, c, _ = block.parts
    edit = partial(_one_task, type(block)((W, W, c, c), noreft), 0)
    edits = {f"transformer.resblocks.{b}.ls_1": edit for b in (0, 1)}
    assert torch.equal(bench.encoder.forward(weights, images, edits), bench.encoder.forward(weights, images))


def test_shifts_begin_at_the_merge_itself(bench: Bench) -> None:
    plan = trained(bench, "intervmerge", 0, variant="mini")
    weights = merged_weights(bench, plan)
    for task, module in plan.modules().items():
        assert distance(bench, weights, task, module) == distance(bench, weights, task)


def test_the_expert_itself_needs_no_shift(tmp_path: Path) -> None:
    plan = trained(tiny_bench(tmp_path, tasks=1), "intervmerge", 1, merged_scale=1.0, variant="mini")
    assert plan.curve[0] == pytest.approx(0, abs=1e-5)


# Learning


@pytest.mark.parametrize(
    ("slug", "parameters"), [("surgery", {}), ("intervmerge", {}), ("intervmerge", {"variant": "mini", "channels": 8})]
)
def test_every_task_comes_closer_to_its_expert(bench: Bench, slug: str, parameters: dict) -> None:
    before, after = (trained(bench, slug, steps, learning_rate=2e-2, **parameters) for steps in (0, 40))
    weights = merged_weights(bench, before)
    for task in bench.tasks:
        start, end = (distance(bench, weights, task, plan.modules()[task]) for plan in (before, after))
        assert end < 0.99 * start and end < 0.99 * distance(bench, weights, task)


@both
def test_the_first_value_of_the_curve_is_the_distance_at_the_start(bench: Bench, slug: str) -> None:
    start, plan = trained(bench, slug, 0), trained(bench, slug, 1)
    weights = merged_weights(bench, start)
    wanted = sum(distance(bench, weights, task, module) for task, module in start.modules().items())
    assert plan.curve[0] == pytest.approx(wanted, rel=1e-5)


@both
def test_the_bench_evaluates_every_task_with_what_it_adds(bench: Bench, slug: str) -> None:
    plan = trained(bench, slug, 20, learning_rate=5e-2)
    modules, merged = plan.modules(), {layer.name: plan.delta(layer) for layer in plan.layers}
    evaluation = bench.evaluate(bench.model(merged, 1.0, modules), slug)
    for task, module in modules.items():
        part = bench.split(task, "test", None)
        z = bench.encoder.forward(merged_weights(bench, plan), part.images, module.edits)
        z = module.repair(z) if module.repair else z
        hits = (torch.nn.functional.normalize(z, dim=-1) @ bench.tasks[task].head.T).argmax(dim=1) == part.labels
        assert evaluation.tasks[task].accuracy == hits.double().mean().item()
