"""What a sweep found: its points against the same images, the best one, the front, and the chosen one's honest interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from dcmerge.evaluation import Evaluation, TaskAccuracy
from dcmerge.evaluation.objectives import ACCURACIES, Estimate, Yardstick
from dcmerge.evaluation.ordered import Hits
from dcmerge.methods.declare import value_text
from dcmerge.studies.sweep.axes import SCALE
from dcmerge.studies.sweep.plan import Plan
from dcmerge.studies.sweep.points import Arm, Point, front, is_worse


@dataclass(frozen=True, eq=False)
class Found:
    """The points of a sweep that are finished so far. ``experts`` and ``zero_shot``: hits on the sweep's images."""

    plan: Plan
    points: tuple[Point, ...]
    experts: Hits = field(repr=False)
    zero_shot: Hits = field(repr=False)
    errors: Mapping[int, str] = field(default_factory=dict)
    remaining: int = 0
    tests: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def yardstick(self) -> Yardstick:
        return Yardstick.of(self.experts)

    @property
    def images(self) -> int:
        """Validation images a task; of the largest task where they differ."""
        return max(map(len, self.experts.values()))

    def values(self, point: Point) -> tuple[float, ...]:
        """Of all objectives."""
        return tuple(point.value(objective, self.yardstick) for objective in self.plan.objectives)

    @cached_property
    def whole(self) -> tuple[Point, ...]:
        """The points that saw all images, which alone can be chosen."""
        return tuple(point for point in self.points if point.images >= self.images)

    @cached_property
    def front(self) -> tuple[Point, ...]:
        """The points that no other beats in all objectives."""
        numbers = set(front({point.number: self.values(point) for point in self.whole}, self.plan.objectives))
        return tuple(point for point in self.whole if point.number in numbers)

    @cached_property
    def best(self) -> Point | None:
        """The point with the best first objective; of equal ones the cheaper or earlier."""
        best: Point | None = None
        for point in self.front:
            if best is None or is_worse(self.values(best)[0], self.values(point)[0], self.plan.objectives[0]):
                best = point
        return best

    @cached_property
    def honest(self) -> Hits | None:
        """What choosing gives on images that did not choose: point and α chosen on each half, looked at on the other one.

        Bool (n,) by task, in the order of seeing. None without a point, and where a half of a task's images would be empty.
        """
        arms = [arm for point in self.whole for arm in point.whole_arms(self.images)]
        if not arms or min(map(len, self.experts.values())) < 2:
            return None
        objective = self.plan.accuracies[0]
        halves = {task: torch.arange(len(own)) % 2 == 0 for task, own in self.experts.items()}

        def chosen(on: Mapping[str, torch.Tensor]) -> Arm:
            return max(arms, key=lambda arm: self.yardstick.estimate({t: h[on[t]] for t, h in arm.hits.items()}, objective).value)

        by_even, by_odd = chosen(halves), chosen({task: ~half for task, half in halves.items()})
        return {task: torch.where(half, by_odd.hits[task], by_even.hits[task]) for task, half in halves.items()}

    def estimate(self, point: Point, objective: str | None = None) -> Estimate:
        return self.yardstick.estimate(point.hits, objective or self.plan.accuracies[0])

    @property
    def honest_estimate(self) -> Estimate | None:
        return None if self.honest is None else self.yardstick.estimate(self.honest, self.plan.accuracies[0])

    @property
    def tried(self) -> str:
        """ "best of 40 on 300 validation images a task": what was chosen from, for recipes and cards."""
        return f"best of {len(self.points)} on {self.images} validation images a task"

    def origin_of(self, point: Point) -> str:
        """Where a point's values and α are from: chosen as the best, or picked from all by a person."""
        if point is self.best:
            return self.origin
        return f"picked by hand from {len(self.points)} points on {self.images} validation images a task ({self.plan.text})"

    @property
    def origin(self) -> str:
        """Where the chosen point's values and α are from, with the interval that its own choice did not flatter."""
        objective, honest, best = self.plan.accuracies[0], self.honest_estimate, self.best
        if best is None:
            return self.tried
        text = f"{self.tried} ({self.plan.text}): {ACCURACIES[objective]} {percent(self.estimate(best).value)}"
        if honest is None:
            return text
        low, high = percent(honest.low), percent(honest.high)
        return f"{text}; {percent(honest.value)} [{low}, {high}] on the half of the images that did not choose it"

    def evaluation(self, point: Point) -> Evaluation:
        """The point's accuracies on the images that it saw, in the order of seeing."""
        tasks = {t: TaskAccuracy(t, own, self.yardstick.experts[t] or None) for t, own in point.hits.items()}
        return Evaluation(self.plan.slug, "val", tasks, point.images)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def described(point: Point) -> str:
    """The swept values and α in one line: "rho 5, α 2.2"."""
    texts = [f"{name} {value_text(value)}" for name, value in point.values.items() if name != SCALE]
    return ", ".join([*texts, f"α {point.scale:g}"])
