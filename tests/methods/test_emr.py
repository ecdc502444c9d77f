"""EMR-Merging: the elected vector, each task's mask and number, and whose model is evaluated and saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dcmerge import InputError, merge, merge_to_file
from dcmerge.checkpoints import dense
from dcmerge.evaluation import Bench, choose_scale
from dcmerge.merging.merge import Merged
from dcmerge.methods.emr import elected_vector
from tests.builders import SHAPES, full_set, lora_set, random_deltas, random_factors, random_tensors, relative_error, tiny_bench

BASE = random_tensors(0)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    return merge(full_set(tmp_path_factory.mktemp("emr"), random_deltas(3), BASE), "emr")


def own_deltas(merged: Merged, task: str) -> dict[str, Tensor]:
    return {name: dense(merged.modules[task].delta(name, delta)) for name, delta in merged.deltas.items()}


def test_the_elected_vector_worked_by_hand() -> None:
    D = torch.tensor([[1.0, -5, 2, 1, 0], [3, 2, -1, -1, 0], [-2, 1, 4, 0, 0]])
    # The sums are 2, −2, 5, 0, 0, and a sum of 0 counts as negative.
    assert elected_vector(D).tolist() == [3, -5, 4, -1, 0]


def test_masks_and_rescalers_worked_by_hand(tmp_path: Path) -> None:
    deltas = {"a": {"w": torch.tensor([[1.0, -5, 2]])}, "b": {"w": torch.tensor([[3.0, 2, -1]])}}
    merged = merge(full_set(tmp_path, deltas), "emr")
    assert merged.deltas["w"].tolist() == [[3, -5, 2]]
    assert own_deltas(merged, "a")["w"].tolist() == [pytest.approx([0.8 * 3, 0.8 * -5, 0.8 * 2])]  # sizes 8 and 10
    assert own_deltas(merged, "b")["w"].tolist() == [[6, 0, 0]]  # sizes 6 and 3


def test_one_expert_comes_back(tmp_path: Path) -> None:
    deltas = random_deltas(1)["task0"]
    found = own_deltas(merge(full_set(tmp_path, {"task0": deltas}), "emr"), "task0")
    assert found.keys() == deltas.keys()
    for name, delta in found.items():
        torch.testing.assert_close(delta, deltas[name])


@pytest.mark.parametrize(("size", "of"), [("means", torch.Tensor.mean), ("entries", torch.Tensor.sum)])
def test_every_tasks_vector_keeps_the_size_of_its_own(merged: Merged, size: str, of: Callable[[Tensor], Tensor]) -> None:
    """Worked in float64: by default the sum of the parameters' means, as the authors have it, else the sum of all entries."""
    merged = merge(merged.vectors, "emr", size=size)
    for task in merged.vectors.tasks:
        own = sum(of(dense(merged.vectors.delta(name, task)).abs().double()).item() for name in SHAPES)
        found = sum(of(delta.abs().double()).item() for delta in own_deltas(merged, task).values())
        assert found == pytest.approx(own, rel=1e-5)


def test_every_tasks_vector_is_the_elected_one_where_the_signs_agree(merged: Merged) -> None:
    for task in merged.vectors.tasks:
        ratios = []
        for name, delta in own_deltas(merged, task).items():
            elected, own = merged.deltas[name], merged.vectors.delta(name, task)
            agrees = elected.sign() == own.sign()
            assert torch.equal(delta != 0, agrees) and delta.shape == SHAPES[name]
            ratios.append((delta / elected)[agrees])
        ratio = torch.cat(ratios)
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))  # one number for the whole model


def test_a_part_is_one_bit_an_entry_and_a_number(merged: Merged) -> None:
    entries = sum(delta.numel() for delta in merged.deltas.values())
    assert {module.size for module in merged.modules.values()} == {entries // 32 + 1}


def test_adapters_have_parts_too(tmp_path: Path) -> None:
    low = merge(lora_set(tmp_path / "low", {f"task{t}": random_factors(t) for t in range(2)}), "emr")
    products = {f"task{t}": {name: B @ A for name, (B, A) in random_factors(t).items()} for t in range(2)}
    full = merge(full_set(tmp_path / "full", products), "emr")
    for task in products:
        found, wanted = own_deltas(low, task), own_deltas(full, task)
        assert all(relative_error(found[name], wanted[name]) < 1e-4 for name in wanted)


# On the bench and in a file


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def test_every_task_is_evaluated_with_its_own_weights(bench: Bench) -> None:
    merged = merge(bench.vectors, "emr", bench=bench)
    found = bench.evaluate(merged.model(bench, 1.0), "emr")
    for task in bench.tasks:
        alone = bench.evaluate(bench.merged_weights(own_deltas(merged, task), 1.0), "alone")
        assert torch.equal(found.tasks[task].hits, alone.tasks[task].hits)
        assert found.tasks[task].expert == alone.tasks[task].expert
    other = bench.evaluate(bench.merged_weights(own_deltas(merged, "task0"), 1.0), "alone")
    assert not torch.equal(found.tasks["task1"].hits, other.tasks["task1"].hits)


def test_a_scale_is_chosen_for_the_tasks_own_models(bench: Bench) -> None:
    merged = merge(bench.vectors, "emr")
    found = choose_scale(bench, merged.deltas, modules=merged.modules, step=0.5, last=1.5, furthest=1.5, coarse=1)
    for alpha, accuracy in found.curve:
        measured = bench.evaluate(merged.model(bench, alpha), "emr", split="val")
        assert accuracy == (measured.mean if measured.mean_normalised is None else measured.mean_normalised)


def test_of_one_expert_every_accuracy_is_the_experts(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path, tasks=1)
    found = bench.evaluate(merge(bench.vectors, "emr").model(bench, 1.0), "emr")
    assert found.mean == 1.0 and found.mean_normalised == 1.0  # the expert labels its images itself


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_task_is_saved_as_base_plus_its_own_vector(merged: Merged, tmp_path: Path, scale: float) -> None:
    merged.save(tmp_path / "held.safetensors", task="task1", scale=scale)
    written, own = load_file(tmp_path / "held.safetensors"), own_deltas(merged, "task1")
    assert written.keys() == BASE.keys()
    for name, value in written.items():
        torch.testing.assert_close(value, BASE[name] + scale * own[name])
    merge_to_file(merged.vectors, "emr", tmp_path / "streamed.safetensors", task="task1", scale=scale)
    assert (tmp_path / "held.safetensors").read_bytes() == (tmp_path / "streamed.safetensors").read_bytes()


@pytest.mark.parametrize("task", [None, "cars"])
def test_no_model_is_saved_without_a_task(merged: Merged, tmp_path: Path, task: str | None) -> None:
    with pytest.raises(InputError, match="emr makes a model for each task, expected one of task0, task1, task2, got "):
        merged.save(tmp_path / "out.safetensors", task=task)
    with pytest.raises(InputError, match="expected one of task0, task1, task2, got "):
        merge_to_file(merged.vectors, "emr", tmp_path / "out.safetensors", task=task)
    assert not list(tmp_path.iterdir())


def test_a_task_is_refused_where_there_is_one_model_for_all(merged: Merged, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="average makes one model for all tasks, expected no task, got 'task1'"):
        merge(merged.vectors, "average").save(tmp_path / "out.safetensors", task="task1")
