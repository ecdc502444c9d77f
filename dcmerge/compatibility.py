"""Does a set of checkpoints fit together? Everything that differs, found before anything is merged."""

from __future__ import annotations

import math
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import partial

import torch

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, LowRank, TensorInfo
from dcmerge.threads import ahead_on_all_threads
from dcmerge.towers import tower_of

#: Floating-point buffers that are no parameters: masks (old open_clip: -inf above the diagonal, and -inf minus -inf is NaN),
#: tables of rotary positions.
_BUFFERS = re.compile(r"(.*\.)?(attn_mask|causal_mask|masked_bias|position_ids|inv_freq)")
OUTSIDE_TOWER = "not in the experts, kept from the base"
#: So many names stand in a finding's text where the rest is told by their number; ``parameters`` has all.
_NAMED = 8


class Kind(StrEnum):
    """What a parameter is to a merging method."""

    MATRIX = "matrix"
    VECTOR = "vector"
    CONVOLUTION = "convolution"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Parameter:
    """One parameter of the set, how it is treated, and the reason where that is not obvious."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    reason: str = ""

    @property
    def mergeable(self) -> bool:
        return self.kind is not Kind.SKIPPED

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Finding:
    """Something a user should know of the set. An "error" forbids merging, a "warning" and a "note" do not."""

    level: str
    what: str
    text: str
    task: str | None = None
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What fits, what differs, what is skipped and why. Norms are ‖τ‖ of each expert and ‖θ0‖ over the same parameters."""

    tasks: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    findings: tuple[Finding, ...]
    delta_norms: dict[str, float] = field(default_factory=dict)
    base_norm: float | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "warning")

    def counts(self) -> dict[str, int]:
        """Number of parameters of each kind."""
        return {kind.value: sum(p.kind is kind for p in self.parameters) for kind in Kind}

    def to_dict(self) -> dict:
        return asdict(self) | {"counts": self.counts()}


def classify(name: str, info: TensorInfo) -> Parameter:
    """Matrix (2-D), vector (0-D, 1-D), convolution (3-D and more), or skipped (not a floating-point tensor).

    The text projection counts as a vector, that is, it is averaged: DC-Merge's and TSV-M's published code excludes every
    name that holds ``text_projection`` from the singular-value route.
    """
    if not info.dtype.is_floating_point:
        return Parameter(name, info.shape, Kind.SKIPPED, f"buffer of {str(info.dtype).removeprefix('torch.')}, kept from "
                                                         "the base")
    if _BUFFERS.fullmatch(name):
        return Parameter(name, info.shape, Kind.SKIPPED, "a buffer, no parameter, kept from the base")
    if len(info.shape) == 2:
        if "text_projection" in name:
            return Parameter(name, info.shape, Kind.VECTOR, "text projection, averaged as in the authors' code")
        return Parameter(name, info.shape, Kind.MATRIX)
    return Parameter(name, info.shape, Kind.VECTOR if len(info.shape) < 2 else Kind.CONVOLUTION)


def examine(
    base: Checkpoint | None,
    experts: Mapping[str, Checkpoint],
    *,
    values: bool = True,
    progress: Callable[[float, str], None] | None = None,
) -> Report:
    """Compare names, shapes and dtypes, then, if those fit, stream every value once. Never raises for a set that differs.

    Without ``values`` only headers are read: quick for any size, but NaN, zero deltas and equal experts are not found.
    """
    lora = all(isinstance(expert, LoraCheckpoint) for expert in experts.values())
    wanted, called = (_of_any(experts), "another adapter") if lora else (base.infos, "the base")
    parameters = tuple(classify(name, info) for name, info in wanted.items())
    names = [p.name for p in parameters if p.mergeable]
    tower = None if lora else tower_of(names, [expert.infos for expert in experts.values()])
    if tower:
        outside = set(tower.outside)
        parameters = tuple(replace(p, kind=Kind.SKIPPED, reason=OUTSIDE_TOWER) if p.name in outside else p for p in parameters)
    merged = {p.name for p in parameters if p.mergeable}
    findings = [*_compare_headers(wanted, called, experts, merged), *_notes(base, experts)]
    if tower:
        text = (f"the experts hold {tower.title} alone, {len(merged)} of the base's {len(names)} parameters: the other "
                f"{len(tower.outside)} stay as in the base")  # fmt: skip
        findings.append(Finding("note", "tower", text, None, tower.outside))
    if lora:
        findings += [*_other_targets(wanted, experts), *_other_ranks(wanted, experts)]
    if lora and base:
        findings += _adapted_weights_in_base(base, parameters)
    if not any(p.mergeable for p in parameters):
        findings.append(Finding("error", "nothing", f"{called} has no floating-point parameter: there is nothing to merge"))
    skipped = [p for p in parameters if not p.mergeable and p.reason != OUTSIDE_TOWER]
    if skipped:
        findings.append(Finding("note", "buffer", f"{len(skipped)} buffers are not merged but kept from the base: "
                                + ", ".join(p.name for p in skipped), parameters=tuple(p.name for p in skipped)))
    if not values or any(finding.level == "error" for finding in findings):
        return Report(tuple(experts), parameters, tuple(findings))
    read = _Values()
    mergeable = [p for p in parameters if p.mergeable]
    look = partial(_look, None if lora else base, experts)
    # Products of factors are so small that threads within one only wait for each other.
    with closing(ahead_on_all_threads(look, mergeable) if lora else (look(p) for p in mergeable)) as seen:
        for done, parameter in enumerate(mergeable):
            if progress:
                progress(done / len(mergeable), parameter.name)
            read.add(parameter.name, next(seen))
    findings += read.findings(tuple(experts))
    norms = {task: math.sqrt(read.delta_square[task]) for task in experts}
    return Report(tuple(experts), parameters, tuple(findings), norms, None if lora else math.sqrt(read.base_square))


def _of_any(adapters: Mapping[str, Checkpoint]) -> dict[str, TensorInfo]:
    """The union of the adapted weights: one that an adapter lacks counts as unchanged there."""
    found: dict[str, TensorInfo] = {}
    for adapter in adapters.values():
        found |= {name: info for name, info in adapter.infos.items() if name not in found}
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _other_targets(wanted: Mapping[str, TensorInfo], adapters: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    for task, adapter in adapters.items():
        if lacking := tuple(name for name in wanted if name not in adapter.infos):
            yield Finding("note", "other targets", f"{task} does not adapt {len(lacking)} of the {len(wanted)} weights that are "
                          f"merged, and counts as unchanged there: {_listed(lacking)}", task, lacking)


def _other_ranks(wanted: Mapping[str, TensorInfo], adapters: Mapping[str, LoraCheckpoint]) -> Iterator[Finding]:
    """One note where adapters give the same weight different ranks."""
    ranks = {task: {name: adapter.rank_of(name) for name in adapter.infos} for task, adapter in adapters.items()}
    differ = tuple(name for name in wanted if len({own[name] for own in ranks.values() if name in own}) > 1)
    if differ:
        spans = {task: sorted({min(own.values()), max(own.values())}) for task, own in ranks.items()}
        told = ", ".join(f"{task} {' to '.join(map(str, span))}" for task, span in spans.items())
        yield Finding("note", "other ranks", f"the adapters differ in rank at {len(differ)} weights ({told}); where a method "
                      "needs one rank it is the largest at that weight, the others filled up with zeros", None, differ)


def _compare_headers(
    wanted: Mapping[str, TensorInfo], called: str, experts: Mapping[str, Checkpoint], merged: set[str]
) -> Iterator[Finding]:
    """Names, shapes and dtypes of what is there; those of what is merged alone, the rest stays the base's."""
    for task, expert in experts.items():
        got, lora = expert.infos, isinstance(expert, LoraCheckpoint)
        missing = tuple(name for name in wanted if name in merged and name not in got)
        extra = tuple(name for name in got if name not in wanted)
        common = [name for name in got if name in merged]
        shapes = [name for name in common if got[name].shape != wanted[name].shape]
        dtypes = tuple(name for name in common if got[name].dtype != wanted[name].dtype)
        if missing and not lora:
            yield Finding("error", "missing", f"{task} lacks {len(missing)} parameters: {', '.join(missing)}", task, missing)
        if shapes:
            told = ", ".join(f"{n} (expected {list(wanted[n].shape)}, got {list(got[n].shape)})" for n in shapes)
            yield Finding("error", "other shape", f"{task} has {len(shapes)} parameters of another shape: "
                                                  f"{told}", task, tuple(shapes))
        if extra:
            yield Finding("warning", "extra", f"{task} has {len(extra)} parameters that {called} lacks, which are left out: "
                          + ", ".join(extra), task, extra)
        if dtypes:
            told = f"{dtypes[0]} is {got[dtypes[0]].dtype} here and {wanted[dtypes[0]].dtype} in {called}".replace("torch.", "")
            yield Finding("warning", "other dtype", f"{task} has {len(dtypes)} parameters of another dtype ({told}); "
                          "deltas are taken in float32", task, dtypes)


def _notes(base: Checkpoint | None, experts: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    """What the files hold beside parameters, and how it was read."""
    for who, checkpoint in ({"base": base, **experts} if base else experts).items():
        for note in checkpoint.notes:
            yield Finding("note", "file", f"{who}: {note}", None if who == "base" else who)


def _adapted_weights_in_base(base: Checkpoint, adapted: tuple[Parameter, ...]) -> Iterator[Finding]:
    lost = tuple(p.name for p in adapted if p.name not in base.infos)
    if lost:
        yield Finding("error", "missing", f"the base lacks {len(lost)} adapted weights: {', '.join(lost)}", None, lost)
    other = [p for p in adapted if p.name in base.infos and base.infos[p.name].shape != p.shape]
    if other:
        told = ", ".join(f"{p.name} (base {list(base.infos[p.name].shape)}, adapters {list(p.shape)})" for p in other)
        yield Finding("error", "other shape", f"{len(other)} adapted weights have another shape in the base: {told}",
                      None, tuple(p.name for p in other))


#: What no task is called: names of tasks are texts.
_BASE = None


@dataclass(frozen=True)
class _Seen:
    """One parameter of the base or of one expert: ‖θ0‖² or ‖D_t‖², a checksum, and whether every entry is a number."""

    square: float
    digest: int
    finite: bool


def _look(base: Checkpoint | None, experts: Mapping[str, Checkpoint], parameter: Parameter) -> dict[str | None, _Seen]:
    """One parameter of the whole set, read once; adapters (without ``base``) that lack it are left out."""
    seen: dict[str | None, _Seen] = {}
    if base is not None:
        before = base.read(parameter.name).float()
        seen[_BASE] = _Seen(before.double().square().sum().item(), 0, bool(torch.isfinite(before).all()))
    for task, expert in experts.items():
        if parameter.name not in expert.infos:
            continue
        value, digest = expert.read(parameter.name), 0
        parts = [value.left.float(), value.right.float()] if isinstance(value, LowRank) else [value.float()]
        square = LowRank(*parts).square() if base is None else (parts[0] - before).double().square().sum().item()
        # A sum of squares is finite only of finite entries; another look tells what overflowed from what is not.
        finite = math.isfinite(square) or all(torch.isfinite(part).all() for part in parts)
        for part in parts:
            digest = zlib.crc32(part.contiguous().numpy(), digest)
        seen[task] = _Seen(square, digest, finite)
    return seen


class _Values:
    """What can be said only after reading: NaN and Inf, deltas of zero, equal experts, norms."""

    def __init__(self) -> None:
        self.not_finite: dict[str | None, list[str]] = defaultdict(list)
        self.changed: set[str] = set()
        self.unchanged: dict[str, list[str]] = defaultdict(list)
        self.digests: dict[str, int] = defaultdict(int)
        self.delta_square: dict[str, float] = defaultdict(float)
        self.base_square = 0.0

    def add(self, name: str, seen: Mapping[str, _Seen]) -> None:
        for who, one in seen.items():
            if not one.finite:
                self.not_finite[who].append(name)
            square = 0.0 if math.isnan(one.square) else one.square
            if who == _BASE:
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
                text = f"{who or 'base'} holds NaN or Inf in: {', '.join(names)}"
                yield Finding("error", "not finite", text, who, tuple(names))
        for task in tasks:
            names = tuple(self.unchanged[task])
            if task not in self.changed:
                yield Finding("warning", "zero delta", f"{task} does not differ from the base at all", task)
            elif names:
                yield Finding("note", "zero delta", f"{task} leaves {len(names)} parameters as in the base: "
                                                    f"{', '.join(names)}", task, names)
        for place, task in enumerate(tasks):
            twins = [other for other in tasks[:place] if self.digests[other] == self.digests[task]]
            if twins:
                yield Finding("warning", "identical", f"{task} is identical to {twins[0]}, which then counts twice", task)
