"""Continual merging: how well every task is known after each expert that came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dcmerge.errors import Cancelled
from dcmerge.evaluation import Bench, Evaluation
from dcmerge.methods import method
from dcmerge.methods.opcm import accumulated_by_step, arrival
from dcmerge.vectors.layers import Layer

OPCM = "opcm"


@dataclass(frozen=True, eq=False)
class Step:
    """The merged model after one more expert, on all tasks."""

    expert: str
    evaluation: Evaluation


@dataclass(frozen=True, eq=False)
class Sequel:
    """All steps in order of arrival."""

    steps: tuple[Step, ...]

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(step.expert for step in self.steps)

    def so_far(self, step: int) -> float:
        """Mean accuracy over the tasks whose experts have come by this step (from 0)."""
        tasks = self.steps[step].evaluation.tasks
        return sum(tasks[task].accuracy for task in self.order[: step + 1]) / (step + 1)

    @property
    def backward_transfer(self) -> float:
        """BWT: mean over all but the last expert of accuracy at the end minus accuracy when it had just come."""
        last = self.steps[-1].evaluation.tasks
        changes = [last[step.expert].accuracy - step.evaluation.tasks[step.expert].accuracy for step in self.steps[:-1]]
        return sum(changes) / len(changes) if changes else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; accuracies are shares."""
        steps = [
            {"expert": step.expert, "so_far": self.so_far(place), "accuracy": step.evaluation.to_dict()}
            for place, step in enumerate(self.steps)
        ]
        return {"order": list(self.order), "backward_transfer": self.backward_transfer, "steps": steps}


def steps_of_opcm(
    bench: Bench,
    parameters: dict[str, Any] | None = None,
    *,
    split: str = "test",
    limit: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Sequel:
    """OPCM's model after each expert (α = 1, as its length is its own) on every task; Tang et al. 2025, arXiv 2501.09522.

    Raises InputError for bad parameters and Cancelled when ``cancelled()`` turns true.
    """
    values = method(OPCM).check(parameters or {})
    layers = [Layer(bench.vectors, parameter) for parameter in bench.vectors.parameters.values()]
    order, steps = arrival(bench.vectors.tasks, values["seed"]), []
    for expert, found in zip(order, accumulated_by_step(layers, order, values["share"]), strict=True):
        if cancelled and cancelled():
            raise Cancelled
        if progress:
            progress(len(steps) / len(order), f"after {expert}")
        deltas = {name: found.scale * value for name, value in found.sums.items()}
        evaluation = bench.evaluate(bench.model(deltas, 1.0), expert, split=split, limit=limit, cancelled=cancelled)
        steps.append(Step(expert, evaluation))
    return Sequel(tuple(steps))
