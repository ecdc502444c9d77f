"""What can be said of a set only after reading every value once: NaN and Inf, deltas of zero, equal experts, norms."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import combinations, groupby

import torch
from torch import Tensor

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, LowRank, StoredCheckpoint, dense
from dcmerge.errors import listed
from dcmerge.runtime.threads import ahead_on_all_threads
from dcmerge.spectral.linalg import square_of
from dcmerge.vectors.compatibility.report import IN_FULL, Finding, Parameter, row_spans

#: Stands for the base beside the tasks, whose names are texts.
_BASE = None
#: Of a norm that float32 can hold.
_LARGEST_SQUARE = torch.finfo(torch.float32).max ** 2


@dataclass(frozen=True)
class _Seen:
    """A part of a parameter of the base or of one expert: ‖θ0‖² or ‖D_t‖² of it, and whether every entry is a number."""

    square: float
    finite: bool

    def __add__(self, other: _Seen) -> _Seen:
        return _Seen(self.square + other.square, self.finite and other.finite)

    @property
    def too_large(self) -> bool:
        """Whether float32, in which is merged, could not hold the norm."""
        return self.finite and not self.square <= _LARGEST_SQUARE


@dataclass(frozen=True)
class _Part:
    """Some rows of a parameter; without ``rows`` all of it. A processor's cache holds a small part while it is looked at."""

    name: str
    in_full: bool
    rows: tuple[int, int] | None = None

    def of(self, checkpoint: Checkpoint) -> Tensor | LowRank:
        return checkpoint.read(self.name) if self.rows is None else checkpoint.read_rows(self.name, *self.rows)


class _Twins:
    """Which experts are equal as far as they were compared: two that differ are told apart by the first part of theirs."""

    def __init__(self, tasks: Iterable[str]) -> None:
        self.pairs = set(combinations(tasks, 2))

    def compare(self, values: Mapping[str, Sequence[Tensor]]) -> None:
        """One part of all experts; one that lacks it has no values, and equals those that lack it too."""
        for pair in tuple(self.pairs):
            first, second = (values.get(task, ()) for task in pair)
            if len(first) != len(second) or not all(map(torch.equal, first, second)):
                self.pairs.discard(pair)


def _look(base: Checkpoint | None, experts: Mapping[str, Checkpoint], twins: _Twins, part: _Part) -> dict[str | None, _Seen]:
    """One part of the whole set, read once; adapters (without ``base``) that lack it are left out."""
    seen: dict[str | None, _Seen] = {}
    values: dict[str, list[Tensor]] = {}
    factored = not part.in_full and all(isinstance(expert, LoraCheckpoint) for expert in experts.values())
    before = None if base is None or factored else dense(part.of(base)).float()
    if before is not None:
        seen[_BASE] = _seen(before, before)
    for task, expert in experts.items():
        if part.name not in expert.infos:
            continue
        value = part.of(expert)
        if isinstance(value, LowRank):
            values[task] = [value.left.float(), value.right.float()]
            square = LowRank(*values[task]).square()
            finite = math.isfinite(square) or all(torch.isfinite(one).all() for one in values[task])
            seen[task] = _Seen(square, finite)
        else:
            assert before is not None  # only adapters are looked at without their base
            values[task] = [value.float()]
            seen[task] = _seen(values[task][0] - before, values[task][0])
    twins.compare(values)
    return seen


def _seen(delta: Tensor, value: Tensor) -> _Seen:
    square = square_of(delta)
    # A sum of squares is finite only of finite entries; another look tells what overflowed from what is not.
    return _Seen(square, math.isfinite(square) or bool(torch.isfinite(value).all()))


class Values:
    """What can be said only after reading: NaN and Inf, deltas of zero, equal experts, norms."""

    def __init__(self, twins: _Twins) -> None:
        self.twins = twins
        self.not_finite: dict[str | None, list[str]] = defaultdict(list)
        self.too_large: dict[str | None, list[str]] = defaultdict(list)
        self.changed: set[str] = set()
        self.unchanged: dict[str, list[str]] = defaultdict(list)
        self.delta_square: dict[str, float] = defaultdict(float)
        self.base_square = 0.0

    def add(self, name: str, seen: Mapping[str | None, _Seen]) -> None:
        for who, one in seen.items():
            if not one.finite:
                self.not_finite[who].append(name)
            if one.too_large:
                self.too_large[who].append(name)
            square = 0.0 if math.isnan(one.square) else one.square
            if who is None:
                self.base_square += square
                continue
            self.delta_square[who] += square
            if one.square == 0:
                self.unchanged[who].append(name)
            else:
                self.changed.add(who)

    def findings(self, tasks: tuple[str, ...]) -> Iterator[Finding]:
        for who, names in self.not_finite.items():
            if names:
                text = f"{who or 'base'} holds NaN or Inf in: {listed(names)}"
                yield Finding("error", "not finite", text, who, tuple(names))
        for who, names in self.too_large.items():
            text = f"{who or 'base'} holds deltas whose norm leaves the range of float32 in: {', '.join(names)}"
            yield Finding("error", "too large", text, who, tuple(names))
        for task in tasks:
            names = tuple(self.unchanged[task])
            if task not in self.changed:
                yield Finding("warning", "zero delta", f"{task} does not differ from the base at all", task)
            elif names:
                yield Finding(
                    "note", "zero delta", f"{task} leaves {len(names)} parameters as in the base: {listed(names)}", task, names
                )
        for place, task in enumerate(tasks):
            twins = [other for other in tasks[:place] if (other, task) in self.twins.pairs]
            if twins:
                yield Finding("warning", "identical", f"{task} is identical to {twins[0]}, which then counts twice", task)


def read_values(
    base: Checkpoint | None,
    experts: Mapping[str, Checkpoint],
    parameters: Sequence[Parameter],
    progress: Callable[[float, str], None] | None = None,
) -> Values:
    """Stream these parameters of every expert, and of the base where there is one (of adapters for what was trained in full)."""
    twins = _Twins(experts)
    read, look = Values(twins), partial(_look, base, experts, twins)
    everything = [*([base] if base else []), *experts.values()]
    in_rows = all(isinstance(one, StoredCheckpoint) for one in everything)
    parts = [part for parameter in parameters for part in _parts(parameter, in_rows)]
    # Parts, and products of factors, are so small that threads within one only wait for each other.
    ahead = in_rows or all(isinstance(expert, LoraCheckpoint) for expert in experts.values())
    with closing(ahead_on_all_threads(look, parts) if ahead else (look(part) for part in parts)) as seen:
        for done, (name, own) in enumerate(groupby(parts, key=lambda part: part.name)):
            if progress:
                progress(done / len(parameters), name)
            found: dict[str | None, _Seen] = {}
            for _ in own:
                found |= {who: found[who] + one if who in found else one for who, one in next(seen).items()}
            read.add(name, found)
    return read


def _parts(parameter: Parameter, in_rows: bool) -> list[_Part]:
    in_full = parameter.reason == IN_FULL
    return [_Part(parameter.name, in_full, rows) for rows in (row_spans(parameter.shape) if in_rows else (None,))]
