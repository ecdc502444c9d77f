"""A point of a sweep: what was merged, how it was looked at, and which images it got right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dcmerge.evaluation.objectives import ACCURACIES, MEAN, Yardstick

#: Seconds of the merge as an objective beside accuracies.
COST = "cost"
OBJECTIVES = {**ACCURACIES, COST: "seconds of the merge"}


@dataclass(frozen=True, eq=False)
class Arm:
    """A point's merge at one α: which images were right, bool (n,) by task, in the order in which all points see them."""

    scale: float
    hits: Mapping[str, Tensor] = field(repr=False)

    @property
    def images(self) -> int:
        """Images a task that were seen; of the largest task where they differ."""
        return max(map(len, self.hits.values()))


@dataclass(frozen=True, eq=False)
class Point:
    """One point, looked at. ``arms``: every α that was tried, the chosen one first; they may have seen fewer images.

    ``stopped``: it was beaten before it had seen all images. ``values``: the swept values, α among them where it was swept;
    ``parameters``: all of the method; ``mix``: as in a recipe. ``merge_seconds``: of the merge alone; ``seconds``: of everything.
    """

    number: int
    values: Mapping[str, Any]
    parameters: Mapping[str, Any]
    arms: tuple[Arm, ...]
    stopped: bool = False
    merge_seconds: float = 0.0
    seconds: float = 0.0
    mix: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        return self.arms[0].scale

    @property
    def hits(self) -> Mapping[str, Tensor]:
        return self.arms[0].hits

    @property
    def images(self) -> int:
        return self.arms[0].images

    def value(self, objective: str, yardstick: Yardstick) -> float:
        """Of an objective: a share, or seconds."""
        return self.merge_seconds if objective == COST else yardstick.estimate(self.hits, objective).value

    def curve(self, yardstick: Yardstick, objective: str = MEAN) -> tuple[tuple[float, float, int], ...]:
        """(α, accuracy, images a task) of every α that was tried, ascending."""
        rows = ((arm.scale, yardstick.estimate(arm.hits, objective).value, arm.images) for arm in self.arms)
        return tuple(sorted(rows))

    def whole_arms(self, images: int) -> tuple[Arm, ...]:
        """The arms that saw that many images a task."""
        return tuple(arm for arm in self.arms if arm.images >= images)


def accuracies(objectives: tuple[str, ...]) -> tuple[str, ...]:
    """The objectives that are accuracies; the mean where there is none, because α is chosen by one."""
    return tuple(one for one in objectives if one in ACCURACIES) or (MEAN,)


def is_worse(a: float, b: float, objective: str) -> bool:
    """Whether a is worse than b: dearer, or less accurate."""
    return a > b if objective == COST else a < b


def front(points: Mapping[int, tuple[float, ...]], objectives: tuple[str, ...]) -> list[int]:
    """The numbers of the points that no other beats: better in one objective and worse in none."""

    def beats(b: tuple[float, ...], a: tuple[float, ...]) -> bool:
        pairs = list(zip(a, b, objectives, strict=True))
        return any(is_worse(x, y, o) for x, y, o in pairs) and not any(is_worse(y, x, o) for x, y, o in pairs)

    return [number for number, own in points.items() if not any(beats(other, own) for other in points.values())]
