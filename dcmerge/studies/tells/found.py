"""What a study found: for each measure its rank correlation with normalised accuracy, and what choosing by it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.studies.tells.looks import Look, Row
from dcmerge.studies.tells.measures import MEASURES
from dcmerge.studies.tells.plan import Plan, Setting
from dcmerge.studies.tells.statistics import (
    chance_regrets,
    drawn_weights,
    interval,
    regrets,
    shuffled_spearman,
    spearman,
)

ALL, MERGES, ALPHAS = "all", "merges", "alphas"
#: Which choice the measures are asked about.
SCOPES = {
    ALL: "every merge at every α",
    MERGES: "which merge, each at its usual α",
    ALPHAS: "which α, merge by merge",
}
TELLS, SILENT, MISLEADS = "tells", "does not tell", "misleads"
_FEWEST = 3


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a score and normalised accuracy. ``low`` and ``high``: 95 % over resampled merges;
    ``null``: the middle 95 % of shuffled labels; ``rows``: how many it is of."""

    value: float
    low: float
    high: float
    null: tuple[float, float]
    rows: int

    @property
    def word(self) -> str:
        """Whether the interval leaves out 0 and the value lies beyond the null: "tells" or "misleads", by its sign."""
        if self.low > 0 and self.value > self.null[1]:
            return TELLS
        return MISLEADS if self.high < 0 and self.value < self.null[0] else SILENT


@dataclass(frozen=True)
class Regret:
    """The best normalised accuracy by labels minus that of the choice, a share, with its 95 % interval over merges."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of one scope: merges (n,) numbered from 0, accuracy (n,), scores (n,) of one measure."""

    merges: Tensor
    accuracy: Tensor
    scores: Tensor


@dataclass(frozen=True, eq=False)
class Study:
    """The merges that are looked at so far. All figures of ``task`` None are means over the tasks of a merge."""

    plan: Plan
    looks: tuple[Look, ...] = field(repr=False)
    title: str = ""
    _known: dict[tuple[str, str | None, str], Correlation | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.merged) < _FEWEST:
            raise InputError(f"expected at least {_FEWEST} merges that succeeded, got {len(self.merged)}")

    @property
    def merged(self) -> tuple[Look, ...]:
        """Those that could be merged."""
        return tuple(look for look in self.looks if look.rows)

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task for look in self.merged for row in look.rows for task in row.accuracy))

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """Those that have a value anywhere."""
        return tuple(name for name in MEASURES if any(row.measures.get(name) for look in self.merged for row in look.rows))

    def correlation(self, measure: str, task: str | None = None, scope: str = ALL) -> Correlation | None:
        """None where too few rows have the measure, or where it never changes (that of α, by directions alone)."""
        key = measure, task, scope
        if key not in self._known:
            self._known[key] = self._correlation(*key)
        return self._known[key]

    def _correlation(self, measure: str, task: str | None, scope: str) -> Correlation | None:
        rows = self._rows(measure, task, scope)
        if rows is None:
            return None
        if scope == ALPHAS:
            return _mean_within(rows)
        value = spearman(rows.scores, rows.accuracy).item()
        if math.isnan(value):
            return None
        low, high = interval(spearman(rows.scores, rows.accuracy, drawn_weights(rows.merges)))
        null = interval(shuffled_spearman(rows.scores, rows.accuracy, rows.merges))
        return Correlation(value, low, high, null, len(rows.scores))

    def regret(self, measure: str, scope: str = ALL) -> Regret | None:
        """What choosing by the measure costs over all tasks; None where ``correlation`` is."""
        rows = self._rows(measure, None, scope)
        if rows is None or self.correlation(measure, None, scope) is None:
            return None
        return _regret(rows, scope, lambda part, weights: regrets(part.scores, part.accuracy, weights))

    def chance(self, scope: str = ALL) -> Regret | None:
        """What choosing blindly costs: the yardstick of every regret."""
        rows = next((found for name in self.measures if (found := self._rows(name, None, scope))), None)
        return rows and _regret(rows, scope, lambda part, weights: chance_regrets(part.accuracy, weights))

    def word(self, measure: str, scope: str = ALL) -> str | None:
        """Whether it tells over all tasks."""
        found = self.correlation(measure, None, scope)
        return found and found.word

    def telling(self, scope: str = ALL) -> tuple[str, ...]:
        """The measures that tell, the one with the least regret first."""
        found = [name for name in self.measures if self.word(name, scope) == TELLS]
        costs = {name: regret.value for name in found if (regret := self.regret(name, scope))}
        return tuple(sorted(found, key=lambda name: costs.get(name, math.inf)))

    def choice(self, measure: str | None) -> tuple[Setting, float, float]:
        """The merge and its α with the best score, or with the best accuracy by labels (None); and its mean accuracy."""

        def key(pair: tuple[Look, Row]) -> float:
            found = _mean(pair[1].accuracy.values()) if measure is None else _score(pair[1], measure, None)
            return -math.inf if found is None else found

        look, row = max(((look, row) for look in self.merged for row in look.rows), key=key)
        return look.setting, row.alpha, _mean(row.accuracy.values()) or 0.0

    def _rows(self, measure: str, task: str | None, scope: str) -> _Rows | None:
        found: list[tuple[int, float, float]] = []
        for number, look in enumerate(self.merged):
            own = [_pair(row, measure, task) for row in look.rows if _in(row, scope)]
            known = [(number, a, s) for a, s in own if a is not None and s is not None]
            found += known if scope != ALPHAS or len(known) > 1 else []
        if len({number for number, *_ in found}) < _FEWEST:
            return None
        numbers, accuracy, scores = zip(*found, strict=True)
        merges = torch.tensor(numbers).unique(return_inverse=True)[1]
        return _Rows(merges, torch.tensor(accuracy, dtype=torch.float64), torch.tensor(scores, dtype=torch.float64))


def _in(row: Row, scope: str) -> bool:
    return scope != MERGES or row.factor == 1.0


def _pair(row: Row, measure: str, task: str | None) -> tuple[float | None, float | None]:
    """Accuracy and score of a row."""
    accuracy = _mean(row.accuracy.values()) if task is None else row.accuracy.get(task)
    return accuracy, _score(row, measure, task)


def _score(row: Row, measure: str, task: str | None) -> float | None:
    one, values = MEASURES[measure], row.measures.get(measure, {})
    if task is not None:
        return one.score(values[task]) if task in values else None
    return _mean(one.score(value) for value in values.values())


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


def _parts(rows: _Rows) -> list[_Rows]:
    """The rows merge by merge."""
    masks = [rows.merges == one for one in range(int(rows.merges.max()) + 1)]
    return [_Rows(rows.merges[mask], rows.accuracy[mask], rows.scores[mask]) for mask in masks]


def _mean_within(rows: _Rows) -> Correlation | None:
    """Mean over merges of the correlation over α, those left out where one of the two never changes."""
    parts = _parts(rows)
    values = torch.cat([spearman(part.scores, part.accuracy) for part in parts])
    keep = [(part, value) for part, value in zip(parts, values.tolist(), strict=True) if not math.isnan(value)]
    if len(keep) < _FEWEST:
        return None
    own = torch.tensor([value for _, value in keep], dtype=torch.float64)
    low, high = interval(_resampled_mean(own))
    shuffles = [shuffled_within(part, place) for place, (part, _) in enumerate(keep)]
    null = interval(torch.stack(shuffles).nanmean(dim=0))
    return Correlation(own.mean().item(), low, high, null, sum(len(part.scores) for part, _ in keep))


def shuffled_within(part: _Rows, seed: int) -> Tensor:
    """Correlations of one merge with its accuracies in another order."""
    each = torch.arange(len(part.scores))
    return shuffled_spearman(part.scores, part.accuracy, each, seed=seed)


def _resampled_mean(values: Tensor) -> Tensor:
    weights = drawn_weights(torch.arange(len(values)))
    return (weights @ values) / weights.sum(dim=1)


def _regret(rows: _Rows, scope: str, cost: Callable[[_Rows, Tensor | None], Tensor]) -> Regret:
    if scope == ALPHAS:  # a choice for each merge, and the mean of what they cost
        own = torch.cat([cost(part, None) for part in _parts(rows)])
        return Regret(own.mean().item(), *interval(_resampled_mean(own)))
    return Regret(cost(rows, None).item(), *interval(cost(rows, drawn_weights(rows.merges))))


def sentence(study: Study, scope: str = ALL) -> str:
    """Which measures tell, which do not, and which mislead, in one sentence."""
    words = {name: study.word(name, scope) for name in study.measures}
    parts = []
    for word, text in ((TELLS, "tell"), (SILENT, "do not tell"), (MISLEADS, "mislead")):
        if names := [name for name, own in words.items() if own == word]:
            parts.append(f"{_listed(names)} {_singular(text) if len(names) == 1 else text}")
    if fixed := [name for name, own in words.items() if own is None]:
        parts.append(f"{_listed(fixed)} cannot, as {'it does' if len(fixed) == 1 else 'they do'} not change here")
    whole = "; ".join(parts)
    return f"{SCOPES[scope][0].upper()}{SCOPES[scope][1:]}: {whole}."


def _singular(text: str) -> str:
    return {"tell": "tells", "do not tell": "does not tell", "mislead": "misleads"}[text]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
