"""The figure of continual merging says what the steps say."""

from __future__ import annotations

import torch

from dcmerge.evaluation import Evaluation, TaskAccuracy
from dcmerge.plots import sequel_lines
from dcmerge.studies.continual import Sequel, Step


def step(expert: str, **hits: int) -> Step:
    tasks = {task: TaskAccuracy(task, torch.arange(10) < count) for task, count in hits.items()}
    return Step(expert, Evaluation(expert, "val", tasks))


def test_a_line_a_task_dotted_until_its_expert_comes_and_the_mean_so_far() -> None:
    figure = sequel_lines(Sequel((step("b", a=1, b=8), step("a", a=6, b=5))), {"a": "Apes", "b": "Bees"})
    lines = [(line.name, line.line.dash, list(line.x), list(line.y)) for line in figure.data]
    first, second = "1. Bees", "2. Apes"
    assert lines == [
        ("Bees, before its own expert", "dot", [first], [80.0]),
        ("Bees", None, [first, second], [80.0, 50.0]),
        ("Apes, before its own expert", "dot", [first, second], [10.0, 60.0]),
        ("Apes", None, [second], [60.0]),
        ("mean so far", None, [first, second], [80.0, 55.00000000000001]),
    ]
    assert "10 images a task" in figure.layout.title.text and figure.layout.yaxis.title.text == "top-1 accuracy"
