"""Accuracies that state their uncertainty: Wilson intervals, normalised accuracy, paired bootstrap of differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from dcmerge.errors import WARNING, InputError
from dcmerge.evaluation.temperature import LogitScale

#: 97.5 % quantile of the normal distribution, for 95 % intervals.
Z_95 = 1.959963984540054
SPLIT_NAMES = {"val": "validation"}


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); (0, 1) of no images."""
    if total == 0:
        return 0.0, 1.0
    p, z2 = correct / total, Z_95 * Z_95
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def interval_of_mean(values: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """95 % interval of the mean of (value, low, high): the distances to their ends, added as squares (MOVER)."""
    mean = sum(value for value, _, _ in values) / len(values)
    below = math.sqrt(sum((value - low) ** 2 for value, low, _ in values)) / len(values)
    above = math.sqrt(sum((high - value) ** 2 for value, _, high in values)) / len(values)
    return mean - below, mean + above


@dataclass(frozen=True, eq=False)
class TaskAccuracy:
    """Top-1 on one task: which images were right (bool (N,)), and the accuracy of that task's own expert, if known.

    ``joint_hits``: how many are right among all tasks' classes (see ``JointLabels``); None where the model asks for the task.
    """

    task: str
    hits: Tensor = field(repr=False)
    expert: float | None = None
    joint_hits: int | None = None

    @property
    def images(self) -> int:
        return len(self.hits)

    @property
    def accuracy(self) -> float:
        return self.hits.double().mean().item() if self.images else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(int(self.hits.sum()), self.images)

    @property
    def joint(self) -> float | None:
        """The share of the images that are right among all tasks' classes."""
        return None if self.joint_hits is None or not self.images else self.joint_hits / self.images

    @property
    def normalised(self) -> float | None:
        """Accuracy divided by that of the task's own expert on the same images."""
        return self.accuracy / self.expert if self.expert else None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Accuracies of one model on every task, with what they were measured on (``split_rules``: in words, by task).

    ``logit_scale``: the temperature of the models, which what was learned from entropies or losses depends on.
    """

    model: str
    split: str
    tasks: Mapping[str, TaskAccuracy]
    limit: int | None = None
    seed: int = 0
    split_rules: Mapping[str, str] = field(default_factory=dict)
    logit_scale: LogitScale | None = None

    @property
    def mean(self) -> float:
        """Mean absolute accuracy over tasks."""
        return sum(t.accuracy for t in self.tasks.values()) / len(self.tasks)

    @property
    def mean_interval(self) -> tuple[float, float]:
        """95 % interval of the mean over these tasks, from their Wilson intervals."""
        return interval_of_mean([(task.accuracy, *task.interval) for task in self.tasks.values()])

    @property
    def mean_normalised(self) -> float | None:
        """Mean over tasks of the ratios to the experts (not the ratio of the means)."""
        ratios = [ratio for task in self.tasks.values() if (ratio := task.normalised) is not None]
        return sum(ratios) / len(ratios) if len(ratios) == len(self.tasks) else None

    @property
    def joint_mean(self) -> float | None:
        """Mean over tasks of the accuracy among all tasks' classes, the image's task unknown."""
        shares = [share for task in self.tasks.values() if (share := task.joint) is not None]
        return sum(shares) / len(shares) if len(shares) == len(self.tasks) else None

    @property
    def worst(self) -> TaskAccuracy:
        return min(self.tasks.values(), key=lambda task: task.accuracy)

    @property
    def images(self) -> str:
        """Images a task: "1000", or "40 to 60" where tasks differ."""
        sizes = sorted({task.images for task in self.tasks.values()})
        return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"

    @property
    def measured_on(self) -> str:
        """In words: "test split, 1000 images a task"."""
        return f"{SPLIT_NAMES.get(self.split, self.split)} split, {self.images} images a task"

    @property
    def split_lines(self) -> tuple[str, ...]:
        """The rules by which the images were split, tasks of one rule together; none where none is known."""
        tasks: dict[str, list[str]] = {}
        for task, rule in self.split_rules.items():
            tasks.setdefault(rule, []).append(task)
        return tuple(f"{', '.join(names)}: {rule}" for rule, names in tasks.items())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        tasks = {
            name: {"accuracy": t.accuracy, "interval": list(t.interval), "normalised": t.normalised, "images": t.images}
            | {"joint": t.joint}
            for name, t in self.tasks.items()
        }
        return {
            "model": self.model,
            "split": self.split,
            "limit": self.limit,
            "mean": self.mean,
            "mean_interval": list(self.mean_interval),
            "mean_normalised": self.mean_normalised,
            "joint_mean": self.joint_mean,
            "tasks": tasks,
            "split_rules": dict(self.split_rules),
            "logit_scale": asdict(self.logit_scale) if self.logit_scale else None,
        }


def weak_experts(zero_shot: Evaluation, experts: Evaluation) -> tuple[str, ...]:
    """A sentence for every expert that does not beat the base on its own task; both were measured on the same images."""
    return tuple(
        f"{WARNING}the expert of {name} does not know its task: it is right on {100 * own.accuracy:.1f} % of its images, and the "
        f"base without fine-tuning on {100 * zero_shot.tasks[name].accuracy:.1f} % ({experts.measured_on}). Check its file, its "
        "head and the order of the labels before you merge it"
        for name, own in experts.tasks.items()
        if own.accuracy <= zero_shot.tasks[name].accuracy
    )


@dataclass(frozen=True)
class Difference:
    """Mean accuracy of one model minus another's on the same images, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def paired_difference(a: Evaluation, b: Evaluation, resamples: int = 2000, seed: int = 0) -> Difference:
    """Paired bootstrap over images: in each task the same images are resampled for both models, then tasks are averaged.

    Raises InputError where the two were not measured on the same tasks and images.
    """
    if {name: task.images for name, task in a.tasks.items()} != {name: task.images for name, task in b.tasks.items()}:
        raise InputError(f"expected two models on the same images, got {a.measured_on} and {b.measured_on}")
    generator = torch.Generator().manual_seed(seed)
    differences = torch.zeros(resamples, dtype=torch.float64)
    for name, task in a.tasks.items():
        gain = task.hits.double() - b.tasks[name].hits.double()
        drawn = torch.randint(len(gain), (resamples, len(gain)), generator=generator)
        differences += gain[drawn].mean(dim=1) / len(a.tasks)
    low, high = differences.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Difference(a.mean - b.mean, low, high)
