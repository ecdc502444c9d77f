"""Accuracy among all tasks' classes: which labels are one, and for which models it has a meaning."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dcmerge.evaluation import Bench, Model, Task, TaskModule
from dcmerge.evaluation.joint import JointLabels
from tests.builders import tiny_bench

AXES = torch.eye(4)


def task(name: str, classes: tuple[str, ...], rows: Tensor) -> Task:
    return Task(name, name, classes, rows, {})


@pytest.fixture
def tasks() -> dict[str, Task]:
    digits = task("digits", ("one", "two"), AXES[:2])
    street = task("street", ("two", "A"), AXES[2:])
    return {"digits": digits, "street": street}


@pytest.mark.parametrize(
    ("axis", "digits", "street"),
    [
        (0, "one", None),
        (1, "two", "two"),  # the other task's "two" is as right
        (2, "two", "two"),
        (3, None, "A"),
    ],
)
def test_equal_names_are_one_label(tasks: dict[str, Task], axis: int, digits: str | None, street: str | None) -> None:
    joint = JointLabels.of(tasks)
    for name, right in (("digits", digits), ("street", street)):
        classes = tasks[name].classes
        found = joint.hits(name, AXES[axis].expand(2, 4), torch.tensor([0, 1])).tolist()
        assert found == [label == right for label in classes]


def test_names_that_differ_by_a_capital_are_two_labels() -> None:
    joint = JointLabels.of({"letters": task("letters", ("A",), AXES[:1]), "kana": task("kana", ("a",), AXES[1:2])})
    assert joint.hits("letters", AXES[1:2], torch.tensor([0])).tolist() == [False]


def test_a_longer_head_has_no_advantage(tasks: dict[str, Task]) -> None:
    scaled = {**tasks, "street": task("street", ("two", "A"), 100 * AXES[2:])}
    features = torch.nn.functional.normalize(torch.tensor([[2.0, 0.0, 0.0, 1.0]]), dim=-1)
    assert JointLabels.of(scaled).hits("digits", features, torch.tensor([0])).tolist() == [True]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def test_an_evaluation_tells_it_beside_the_other(bench: Bench) -> None:
    found = bench.evaluate(bench.base_weights(), "base")
    heads, hits = torch.cat([one.head for one in bench.tasks.values()]), {}
    for name in bench.tasks:
        part = bench.split(name, "test", None)
        answers = (bench.encoder.encode(bench.base_weights(), part.images) @ heads.T).argmax(dim=1)
        hits[name] = int((answers % 3 == part.labels).sum())  # both tasks call their classes a, b, c
    assert {name: one.joint_hits for name, one in found.tasks.items()} == hits
    assert found.joint_mean == pytest.approx(sum(hits.values()) / 40) == found.to_dict()["joint_mean"]


def test_it_has_no_meaning_where_the_task_is_asked_for(bench: Bench) -> None:
    assert bench.experts().joint_mean is None
    parted = bench.evaluate(Model(bench.base_weights(), {"task0": TaskModule(repair=lambda z: z)}), "parted")
    assert parted.joint_mean is None and parted.to_dict()["tasks"]["task1"]["joint"] is None
