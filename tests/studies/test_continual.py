"""OPCM expert by expert: the last step is the method, the order is kept, transfer is what it says."""

from __future__ import annotations

import pytest
import torch

from dcmerge import Cancelled, InputError, merge
from dcmerge.evaluation import Bench, Evaluation, TaskAccuracy
from dcmerge.methods.opcm import accumulated_by_step, arrival
from dcmerge.studies.continual import Sequel, Step, steps_of_opcm
from dcmerge.vectors.layers import Layer
from tests.builders import relative_error, tiny_bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"), tasks=3)


def layers_of(bench: Bench) -> list[Layer]:
    return [Layer(bench.vectors, parameter) for parameter in bench.vectors.parameters.values()]


def test_the_last_step_is_the_merge_and_the_first_the_expert(bench: Bench) -> None:
    first, *_, last = accumulated_by_step(layers_of(bench), bench.vectors.tasks, 0.5)
    merged = merge(bench.vectors, "opcm").deltas
    for name, value in merged.items():
        assert relative_error(last.scale * last.sums[name], value) < 1e-5
        assert relative_error(first.scale * first.sums[name], bench.vectors.delta(name, "task0")) < 1e-5


def test_every_step_has_the_mean_length_of_the_experts_so_far(bench: Bench) -> None:
    lengths = [bench.vectors.report.delta_norms[task] for task in bench.vectors.tasks]
    for count, step in enumerate(accumulated_by_step(layers_of(bench), bench.vectors.tasks, 0.5), start=1):
        length = sum((step.scale * value).double().square().sum() for value in step.sums.values()).sqrt()
        assert length.item() == pytest.approx(sum(lengths[:count]) / count, rel=1e-5)


def test_steps_are_evaluated_in_the_order_of_arrival(bench: Bench) -> None:
    found = steps_of_opcm(bench, {"seed": 3})
    assert list(found.order) == arrival(bench.vectors.tasks, 3)
    first = found.order[0]
    expert = bench.evaluate(bench.expert_weights(first), first)
    assert torch.equal(found.steps[0].evaluation.tasks[first].hits, expert.tasks[first].hits)
    merged = bench.evaluate(bench.model(merge(bench.vectors, "opcm", seed=3).deltas, 1.0), "opcm")
    assert found.steps[-1].evaluation.mean == pytest.approx(merged.mean)


def test_an_order_is_a_permutation_and_repeats() -> None:
    tasks = ["a", "b", "c", "d"]
    assert arrival(tasks, None) == tasks
    assert sorted(arrival(tasks, 1)) == tasks and arrival(tasks, 1) == arrival(tasks, 1)
    assert len({tuple(arrival(tasks, seed)) for seed in range(10)}) > 1


def test_transfer_and_means_by_hand() -> None:
    def step(expert: str, *hits: int) -> Step:
        tasks = {t: TaskAccuracy(t, torch.arange(10) < n) for t, n in zip("abc", hits, strict=True)}
        return Step(expert, Evaluation(expert, "test", tasks))

    found = Sequel((step("b", 0, 8, 0), step("a", 6, 5, 0), step("c", 4, 6, 9)))
    assert [found.so_far(place) for place in range(3)] == pytest.approx([0.8, 0.55, 19 / 30])
    assert found.backward_transfer == pytest.approx(((0.6 - 0.8) + (0.4 - 0.6)) / 2)
    assert found.to_dict()["order"] == ["b", "a", "c"]


def test_bad_parameters_and_cancel(bench: Bench) -> None:
    with pytest.raises(InputError, match="share: expected"):
        steps_of_opcm(bench, {"share": 2})
    with pytest.raises(Cancelled):
        steps_of_opcm(bench, cancelled=lambda: True)
