"""The facts of a set: each against its definition on a tiny bench, and what is told where there is nothing to measure."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from dcmerge import Cancelled, merge
from dcmerge.evaluation import Bench
from dcmerge.evaluation.calibration import Calibration
from dcmerge.studies.facts import Facts, facts_of, rank_correlation
from dcmerge.studies.interference import cosines, cross_task_energy, inner_products
from tests.builders import random_tensors, tiny_bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"), tasks=3)


@pytest.fixture(scope="module")
def found(bench: Bench) -> Facts:
    return facts_of(bench)


def flat(bench: Bench, task: str) -> Tensor:
    base, own = bench.base_weights(), bench.expert_weights(task)
    return torch.cat([(own[name] - base[name]).flatten() for name in base]).double()


def test_lengths_and_cosines(bench: Bench, found: Facts) -> None:
    deltas = [flat(bench, task) for task in found.tasks]
    base = torch.cat([value.flatten() for value in bench.base_weights().values()]).double()
    for task, delta in zip(found.tasks, deltas, strict=True):
        assert found.lengths[task] == pytest.approx((delta.norm() / base.norm()).item(), rel=1e-4)
    wanted = torch.nn.functional.cosine_similarity(deltas[0], deltas[2], dim=0).item()
    assert found.cosines[0][2] == pytest.approx(wanted, abs=1e-6) == found.cosines[2][0]
    mean, least, largest = found.cosine_range
    assert least <= mean <= largest and found.cosines[1][1] == pytest.approx(1)


def test_a_task_vector_of_length_0_has_no_direction() -> None:
    assert cosines(torch.tensor([[0.0, 0.0], [0.0, 4.0]], dtype=torch.float64)).tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_the_way_that_averaging_closes(bench: Bench, found: Facts) -> None:
    average = bench.evaluate(bench.merged_weights(merge(bench.vectors, "average").deltas, 1.0), "average", split="val")
    zero, own = found.zero_shot, found.experts
    assert {t: one.accuracy for t, one in found.average.tasks.items()} == {t: a.accuracy for t, a in average.tasks.items()}
    assert found.way_of_means == pytest.approx((average.mean - zero.mean) / (own.mean - zero.mean))
    for task, way in found.ways.items():
        gap = own.tasks[task].accuracy - zero.tasks[task].accuracy
        assert way == (pytest.approx((average.tasks[task].accuracy - zero.tasks[task].accuracy) / gap) if gap > 0 else None)


def test_steps_along_the_sum(bench: Bench, found: Facts) -> None:
    merged = merge(bench.vectors, "task_arithmetic").deltas
    assert [step.alpha for step in found.steps][:11] == [round(0.05 * n, 2) for n in range(11)]
    one = next(step for step in found.steps if step.alpha == 0.3)
    weights = bench.merged_weights(merged, 0.3)
    assert one.mean_accuracy == pytest.approx(bench.evaluate(weights, "sum", split="val").mean)
    part = bench.split("task1", "val", None)
    p = (100 * bench.encoder.encode(weights, part.images) @ bench.tasks["task1"].head.T).double().softmax(dim=1)
    assert one.entropy["task1"] == pytest.approx(-(p * p.log()).sum(dim=1).mean().item(), rel=1e-4)
    assert found.gain == pytest.approx(max(step.mean_accuracy for step in found.steps) - found.average.mean)


def test_only_the_split_that_was_asked_for_is_looked_at(bench: Bench, found: Facts) -> None:
    assert {one.split for one in (found.zero_shot, found.average, found.experts)} == {"val"}
    assert facts_of(bench, split="test", limit=5).zero_shot.measured_on == "test split, 5 images a task"


def test_cross_task_energy_against_hooks(bench: Bench) -> None:
    """‖D x‖² of one layer's inputs, seen by a hook; 1 on the diagonal."""
    found, tasks = cross_task_energy(Calibration(bench), 6, "val"), list(bench.tasks)
    assert found.diagonal().tolist() == pytest.approx([1, 1, 1]) and (found > 0).all()
    only = tiny_only(bench, "visual.transformer.resblocks.1.mlp.c_fc.weight")
    seen: dict[str, Tensor] = {}
    module = dict(bench.encoder.visual.named_modules())["transformer.resblocks.1.mlp.c_fc"]
    for task in tasks:
        handle = module.register_forward_pre_hook(lambda module, given, task=task: seen.__setitem__(task, given[0]))
        bench.encoder.encode(bench.base_weights(), Calibration(bench).images(task, 6, "val"))
        handle.remove()
    D = only.vectors.delta("visual.transformer.resblocks.1.mlp.c_fc.weight", "task0")
    energy = {task: (x @ D.T).square().sum(dim=-1).mean().item() for task, x in seen.items()}
    row = cross_task_energy(Calibration(only), 6, "val")[0]
    assert row.tolist() == pytest.approx([energy[task] / energy["task0"] for task in tasks], rel=1e-4)


def tiny_only(bench: Bench, name: str) -> Bench:
    """The same base and tasks; the experts change one weight alone."""
    folder = bench.vectors.base.path.parent / "only"
    shapes = bench.encoder.shapes
    deltas = {
        task: {n: d * (n == name) for n, d in random_tensors(seed, shapes).items()} for seed, task in enumerate(bench.tasks)
    }
    folder.mkdir(exist_ok=True)
    other = tiny_bench(folder, deltas=deltas)
    return Bench(bench.encoder, bench.tasks, other.vectors)


def test_an_expert_that_changes_nothing_has_no_energy_on_others(bench: Bench) -> None:
    still = tiny_only(bench, "no such weight")
    assert torch.equal(cross_task_energy(Calibration(still), 2, "val"), torch.eye(3, dtype=torch.float64))
    assert facts_of(still, limit=3).mean_way is None and inner_products(still.vectors).count_nonzero() == 0


def test_json_holds_no_tensor_and_one_task_alone_has_no_pairs(found: Facts, tmp_path_factory: pytest.TempPathFactory) -> None:
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(plain["cosines"]["matrix"]) == 3 and plain["cross_energy"]["mean"] == found.mean_cross_energy
    alone = facts_of(tiny_bench(tmp_path_factory.mktemp("alone"), tasks=1), limit=5)
    assert alone.cosine_range is None and alone.mean_cross_energy is None and json.dumps(alone.to_dict(), allow_nan=False)


def test_it_can_be_cancelled(bench: Bench) -> None:
    with pytest.raises(Cancelled):
        facts_of(Bench(bench.encoder, bench.tasks, bench.vectors), cancelled=lambda: True)


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(3 / math.sqrt(10))  # ranks 1.5, 1.5, 3, 4
    assert rank_correlation([1, 1], [1, 2]) is None
