"""What a search makes large: the mean normalised accuracy or the worst task's, with intervals and paired differences.

Hits are bool (n,), by task. They are divided by the accuracies of the tasks' own experts, which count as known: an interval
tells how far the merged model's own hits may be off. Where an expert is right on no image, all ratios are plain accuracies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dcmerge.evaluation.accuracy import Difference, interval_of_mean, wilson_interval
from dcmerge.evaluation.ordered import Hits

MEAN, WORST = "mean", "worst"
#: Objectives of accuracy, in words.
ACCURACIES = {MEAN: "mean normalised accuracy", WORST: "the worst task's normalised accuracy"}
_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Yardstick:
    """The experts' accuracies by task, by which hits are divided."""

    experts: Mapping[str, float]

    @classmethod
    def of(cls, hits: Hits) -> Yardstick:
        """Of the experts' hits on their own tasks."""
        return cls({task: own.double().mean().item() for task, own in hits.items()})

    def divisor(self, task: str) -> float:
        return self.experts[task] if all(self.experts.values()) else 1.0

    def tasks(self, hits: Hits) -> dict[str, Estimate]:
        """Normalised accuracy of every task, with its Wilson interval divided alike."""
        found = {}
        for task, own in hits.items():
            divisor, right = self.divisor(task), int(own.sum())
            low, high = wilson_interval(right, len(own))
            found[task] = Estimate(right / max(1, len(own)) / divisor, low / divisor, high / divisor)
        return found

    def estimate(self, hits: Hits, objective: str) -> Estimate:
        """The objective with its interval: of the mean by MOVER, of the worst task its own."""
        rows = list(self.tasks(hits).values())
        if objective == WORST:
            return min(rows, key=lambda one: one.value)
        mean = sum(one.value for one in rows) / len(rows)
        return Estimate(mean, *interval_of_mean([(one.value, one.low, one.high) for one in rows]))

    def worst_task(self, hits: Hits) -> str:
        rows = self.tasks(hits)
        return min(rows, key=lambda task: rows[task].value)

    def difference(self, a: Hits, b: Hits, objective: str, seed: int = 0) -> Difference:
        """The objective of a minus that of b on the same images, paired bootstrap over images.

        Where b saw more images than a, only those that a saw count; both saw them in the same order.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn_a, drawn_b = [], []
        for task, own in a.items():
            other, divisor = b[task][: len(own)], self.divisor(task)
            drawn = torch.randint(len(own), (_RESAMPLES, len(own)), generator=generator)
            drawn_a.append(own.double()[drawn].mean(dim=1) / divisor)
            drawn_b.append(other.double()[drawn].mean(dim=1) / divisor)
        gaps = _combined(torch.stack(drawn_a), objective) - _combined(torch.stack(drawn_b), objective)
        low, high = gaps.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        shortened = {task: b[task][: len(own)] for task, own in a.items()}
        value = self.estimate(a, objective).value - self.estimate(shortened, objective).value
        return Difference(value, low, high)


def _combined(ratios: Tensor, objective: str) -> Tensor:
    """Of ratios (T, resamples)."""
    return ratios.min(dim=0).values if objective == WORST else ratios.mean(dim=0)
