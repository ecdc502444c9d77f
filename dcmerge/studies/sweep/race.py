"""One point looked at: merged once, α looked for on a few images, and only what may still be the best sees more of them.

A point sees a beginning of the images, then twice as many, until it has seen all (successive halving over images). After each
step the α whose paired difference to the point's best excludes 0 are left, and the point stops where its difference to the best
point so far excludes 0. Every look at an α costs images and no merge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dcmerge.evaluation.models import Model
from dcmerge.evaluation.objectives import Yardstick
from dcmerge.evaluation.ordered import Hits, OrderedImages
from dcmerge.studies.sweep.points import Arm

#: α is looked for on a ladder of twenty rungs a decade: first every fourth, then every second, then each.
_RUNGS, _COARSE, _MIDDLE = 20, 4, 2
_LOWEST, _HIGHEST = -40, 20
#: How many α see the second part of the images, and how many each later one.
_KEPT = 3


def rung(place: int) -> float:
    """α at a place of the ladder, with two digits: 1 at 0, 10 at 20."""
    return float(f"{10 ** (place / _RUNGS):.2g}")


def place_of(scale: float) -> int:
    """The place of the ladder nearest to an α above 0."""
    return min(max(round(_RUNGS * math.log10(scale)), _LOWEST), _HIGHEST)


@dataclass(frozen=True, eq=False)
class Course:
    """What all points share: images, experts, objectives of accuracy (the first one chooses α), and whether to stop early."""

    images: OrderedImages
    yardstick: Yardstick
    objectives: tuple[str, ...]
    early: bool = True
    cancelled: Callable[[], bool] | None = None

    @property
    def shares(self) -> tuple[float, ...]:
        return self.images.shares() if self.early else (1.0,)


class Look:
    """One merge, looked at with several α on a growing share of the images."""

    def __init__(self, course: Course, model: Callable[[float], Model]) -> None:
        self._course, self._model = course, model
        self.hits: dict[float, Hits] = {}
        self._left: list[Arm] = []
        self._share = course.shares[0]

    def score(self, scale: float) -> float:
        """The first objective of an α on the images seen so far; looked at now where it was not yet."""
        if scale not in self.hits:
            self.hits[scale] = self._course.images.hits(self._model(scale), 0.0, self._share, self._course.cancelled)
        return self._course.yardstick.estimate(self.hits[scale], self._course.objectives[0]).value

    def best(self) -> float:
        """Ties go to the smaller α."""
        return max(sorted(self.hits), key=self.score)

    def extend(self, share: float) -> None:
        """Every α that is still in the race sees the images up to that share."""
        for scale, hits in self.hits.items():
            more = self._course.images.hits(self._model(scale), self._share, share, self._course.cancelled)
            self.hits[scale] = {task: torch.cat([own, more[task]]) for task, own in hits.items()}
        self._share = share

    def leave_beaten(self) -> None:
        """The α that are surely worse than the best one, or not among the best few, see no more images."""
        best = self.best()
        ranked = sorted(self.hits, key=lambda scale: (-self.score(scale), scale))
        for place, scale in enumerate(ranked):
            if scale != best and (place >= _KEPT or self._is_beaten(self.hits[scale], [self.hits[best]])):
                self._left.append(Arm(scale, self.hits.pop(scale)))

    def is_beaten(self, rivals: Sequence[Hits]) -> bool:
        return self._is_beaten(self.hits[self.best()], rivals)

    def _is_beaten(self, own: Hits, rivals: Sequence[Hits]) -> bool:
        """Whether a rival is better in every objective, by more than chance explains."""
        course = self._course
        return any(
            all(course.yardstick.difference(own, rival, objective).high < 0 for objective in course.objectives)
            for rival in rivals
        )

    def arms(self) -> tuple[Arm, ...]:
        """All that were looked at, the chosen one first, then those that saw most images."""
        best = self.best()
        rest = [Arm(scale, hits) for scale, hits in self.hits.items() if scale != best]
        return (Arm(best, self.hits[best]), *rest, *reversed(self._left))


def race(
    course: Course, model: Callable[[float], Model], scales: Sequence[float], start: float | None, rivals: Sequence[Hits]
) -> tuple[tuple[Arm, ...], bool]:
    """The arms of a point, and whether it stopped early. ``scales``: the α to look at, none to look for the best one from
    ``start`` (None: from anywhere). Raises Cancelled.
    """
    look = Look(course, model)
    if scales:
        for scale in scales:
            look.score(scale)
    else:
        _climb(look, start)
    shares = course.shares
    for share in shares[1:]:
        if look.is_beaten(rivals):
            return look.arms(), True
        look.leave_beaten()
        look.extend(share)
    return look.arms(), False


def _climb(look: Look, start: float | None) -> None:
    """Look for the best α: from a known good one in middle steps, from nowhere in coarse ones first; then ever finer."""
    if start is None:
        for place in range(-2 * _COARSE, 2 * _COARSE + 1, _COARSE):
            look.score(rung(place))
    else:
        look.score(rung(place_of(start)))
    for step in (_COARSE, _MIDDLE, 1) if start is None else (_MIDDLE, 1):
        while True:
            best = look.best()
            place, known = place_of(best), len(look.hits)
            for other in (place - step, place + step):
                if _LOWEST <= other <= _HIGHEST:
                    look.score(rung(other))
            # Finer steps only end the search; they do not walk.
            if look.best() == best or len(look.hits) == known or step == 1:
                break
