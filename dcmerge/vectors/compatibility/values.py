"""What can be said of a set only after reading every value once: NaN and Inf, deltas of zero, equal experts, norms."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, LowRank
from dcmerge.errors import listed
from dcmerge.runtime.threads import ahead_on_all_threads
from dcmerge.vectors.compatibility.report import IN_FULL, Finding, Parameter

#: Stands for the base beside the tasks, whose names are texts.
_BASE = None
#: Of a norm that float32 can hold.
_LARGEST_SQUARE = torch.finfo(torch.float32).max ** 2


@dataclass(frozen=True)
class _Seen:
    """One parameter of the base or of one expert: ‖θ0‖² or ‖D_t‖², a checksum, and whether every entry is a number."""

    square: float
    digest: int
    finite: bool

    @property
    def too_large(self) -> bool:
        """Whether float32, in which is merged, could not hold the norm."""
        return self.finite and not self.square <= _LARGEST_SQUARE


def _look(base: Checkpoint | None, experts: Mapping[str, Checkpoint], parameter: Parameter) -> dict[str | None, _Seen]:
    """One parameter of the whole set, read once; adapters (without ``base``) that lack it are left out."""
    seen: dict[str | None, _Seen] = {}
    factored = parameter.reason != IN_FULL and all(isinstance(expert, LoraCheckpoint) for expert in experts.values())
    before = None if base is None or factored else base.tensor(parameter.name).float()
    if before is not None:
        seen[_BASE] = _Seen(before.double().square().sum().item(), 0, bool(torch.isfinite(before).all()))
    for task, expert in experts.items():
        if parameter.name not in expert.infos:
            continue
        value, digest = expert.read(parameter.name), 0
        if isinstance(value, LowRank):
            parts = [value.left.float(), value.right.float()]
            square = LowRank(*parts).square()
        else:
            assert before is not None  # only adapters are looked at without their base
            parts = [value.float()]
            square = (parts[0] - before).double().square().sum().item()
        # A sum of squares is finite only of finite entries; another look tells what overflowed from what is not.
        finite = math.isfinite(square) or all(torch.isfinite(part).all() for part in parts)
        for part in parts:
            digest = zlib.crc32(part.contiguous().numpy().data, digest)
        seen[task] = _Seen(square, digest, finite)
    return seen


class Values:
    """What can be said only after reading: NaN and Inf, deltas of zero, equal experts, norms."""

    def __init__(self) -> None:
        self.not_finite: dict[str | None, list[str]] = defaultdict(list)
        self.too_large: dict[str | None, list[str]] = defaultdict(list)
        self.changed: set[str] = set()
        self.unchanged: dict[str, list[str]] = defaultdict(list)
        self.digests: dict[str, int] = defaultdict(int)
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
            self.digests[who] = zlib.crc32(f"{name} {one.digest}".encode(), self.digests[who])
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
            twins = [other for other in tasks[:place] if self.digests[other] == self.digests[task]]
            if twins:
                yield Finding("warning", "identical", f"{task} is identical to {twins[0]}, which then counts twice", task)


def read_values(
    base: Checkpoint | None,
    experts: Mapping[str, Checkpoint],
    parameters: Sequence[Parameter],
    progress: Callable[[float, str], None] | None = None,
) -> Values:
    """Stream these parameters of every expert, and of the base where there is one (of adapters for what was trained in full)."""
    read, look = Values(), partial(_look, base, experts)
    # Products of factors are so small that threads within one only wait for each other.
    adapters = all(isinstance(expert, LoraCheckpoint) for expert in experts.values())
    with closing(ahead_on_all_threads(look, parameters) if adapters else (look(p) for p in parameters)) as seen:
        for done, parameter in enumerate(parameters):
            if progress:
                progress(done / len(parameters), parameter.name)
            read.add(parameter.name, next(seen))
    return read
