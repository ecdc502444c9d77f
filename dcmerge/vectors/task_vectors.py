"""A base and its experts as task vectors: which parameters there are, and their deltas, one parameter at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcmerge.checkpoints import (
    Checkpoint,
    LoraCheckpoint,
    LowRank,
    StoredCheckpoint,
    open_checkpoint,
)
from dcmerge.checkpoints.regrouped import QKV, STORED, in_stored_scheme, qkv_of, regrouped, stored_names
from dcmerge.checkpoints.schemes import NONE, stored_qkv
from dcmerge.checkpoints.state_dicts import EMA
from dcmerge.errors import IncompatibleSet, InputError
from dcmerge.vectors.adapters import check_bases, factors_alone
from dcmerge.vectors.applied import applied
from dcmerge.vectors.cache import Memo, Store, default_store
from dcmerge.vectors.compatibility import Kind, Parameter, Report, classify, examine
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.meeting import on_base, under_common_names
from dcmerge.vectors.mix import CONSTANT, Mix
from dcmerge.vectors.naming import Depth, depth_of, stacks_of
from dcmerge.vectors.remembered import remembered_report, state_of
from dcmerge.vectors.vocabulary import with_one_vocabulary

Delta = Tensor | LowRank
Source = str | Path | Checkpoint
Rows = tuple[int, int]


@dataclass
class TaskVectors:
    """The deltas of T experts against one base. ``parameters`` lists what can be merged, ``report`` says what differs.

    Full fine-tuning (``kind`` "full"): delta = expert − base, float32, of every floating parameter. LoRA (``kind`` "lora"):
    delta = B A · scale of every weight that any of them adapts, kept as factors, zero (of rank 0) for an expert that does not
    adapt it; the base is optional and needed only to save a full model.
    """

    base: Checkpoint | None
    experts: dict[str, Checkpoint]
    parameters: dict[str, Parameter]
    report: Report
    memo: Memo = field(default_factory=Memo, repr=False)
    store: Store | None = field(default_factory=default_store, repr=False)
    #: Relative residual that a truncated SVD may have (see ``linalg.truncated_svd``); 0 is exact.
    tolerance: float = 0.0
    #: The embedded zoo that these models are, for recipes.
    zoo: str | None = None
    #: What was chosen about how the files are fitted together.
    fit: Fit = field(default_factory=Fit)
    #: How much each expert counts, and the same set without that, whose factors are shared (see ``mixed``).
    mix: Mix = field(default_factory=Mix)
    plain: TaskVectors | None = field(default=None, repr=False)

    @classmethod
    def open(
        cls,
        base: Source | None,
        experts: Mapping[str, Source],
        *,
        qkv: str = STORED,
        fit: Fit | None = None,
        remembered: bool = False,
        progress: Callable[[float, str], None] | None = None,
    ) -> TaskVectors:
        """Open checkpoints lazily and check that they fit together, reading one parameter at a time.

        ``qkv`` says how attention's q, k and v are merged: "stored" as the files have them, "split" as three matrices, "fused"
        as one. That changes what a method sees, and not the file that is written, which has the base's own scheme. ``fit``
        chooses what is merged where not all files have the same; ``report`` says what was left out. ``remembered``: the report
        may be the one that the cache on disk keeps of files in this very state, which saves reading them.

        Raises InputError for a file that cannot be read and IncompatibleSet, with every reason, for a set that cannot be
        merged (missing parameters, other shapes, NaN or Inf).
        """
        fit = fit or Fit()
        opened_base, opened = open_set(base, experts, qkv, fit)
        store = default_store()
        found = partial(examine, opened_base, opened, fit, progress=progress)
        state = state_of(opened_base, opened, {"fit": fit.to_data(), "qkv": qkv}) if remembered else ""
        report = remembered_report(store, state, found) if remembered else found()
        if report.errors:
            lines = "\n".join(f"- {finding.text}" for finding in report.errors)
            raise IncompatibleSet(f"these checkpoints cannot be merged:\n{lines}", report)
        return cls(opened_base, opened, {p.name: p for p in report.parameters if p.mergeable}, report, store=store, fit=fit)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.experts)

    @property
    def kind(self) -> str:
        return "lora" if all(isinstance(expert, LoraCheckpoint) for expert in self.experts.values()) else "full"

    @property
    def adapters(self) -> tuple[LoraCheckpoint, ...]:
        """The experts where they are adapters, in task order; empty for full fine-tuning."""
        return tuple(expert for expert in self.experts.values() if isinstance(expert, LoraCheckpoint))

    @property
    def qkv(self) -> str:
        """How attention's q, k and v are merged: "split", "fused", "mixed" or, where none of them is merged, "none"."""
        return qkv_of(self._checkpoints, self.parameters)[0]

    @property
    def qkv_stored(self) -> str:
        """The same of the files: what they hold of the parameters that are merged."""
        return qkv_of(self._checkpoints, self.parameters)[1]

    @property
    def _checkpoints(self) -> tuple[Checkpoint, ...]:
        return (*([self.base] if self.base else []), *self.experts.values())

    def as_stored(
        self, deltas: Iterable[tuple[str, Delta]], *, by_adapters: bool = False
    ) -> tuple[TaskVectors, Iterable[tuple[str, Delta]]]:
        """This set as its files have it, and deltas by this set's names under the names in the files, as they come.

        Both unchanged where everything is merged as it is stored. ``by_adapters``: as the adapters have it, whatever the base.
        """
        views = tuple(self.experts.values()) if by_adapters else self._checkpoints
        if all(one.stored is one for one in views):
            return self, deltas
        parameters: dict[str, Parameter] = {}
        for name in self.parameters:
            holder = next(one for one in views if name in one.infos)
            for stored in stored_names([holder], name):
                parameters[stored] = classify(stored, holder.stored.infos[stored])
        base, experts = self.base and self.base.stored, {task: expert.stored for task, expert in self.experts.items()}
        twin = replace(self, base=base, experts=experts, parameters=parameters, memo=Memo(), plain=None)
        return twin, in_stored_scheme(views, deltas)

    def mixed(
        self, mix: Mix | None = None, *, weights: Mapping[str, Any] | None = None, depths: Any = None, depth: Any = CONSTANT
    ) -> TaskVectors:
        """The same set with a weight for some experts and profiles over depth, of experts and of α; see ``Mix``.

        ``mixed(weights={"cats": 1.2}, depth="linear:0.5:1.5")``. Every other weight is 1; a mix that the set had is replaced.
        Raises InputError for an unknown expert, anything that is no weight or profile, and profiles of a model without blocks.
        """
        plain = self.plain or self
        found = Mix.of(weights, depths, depth) if mix is None else mix
        found.check(self.tasks, has_blocks=bool(plain.stacks))
        return replace(plain, mix=found.trimmed(), plain=plain, memo=Memo()) if found else plain

    @property
    def stacks(self) -> dict[str, int]:
        """How many blocks every stack has, by names of the set and of what the base holds besides; see ``stacks_of``."""
        return self.memo.get("stacks", lambda: stacks_of((*self.parameters, *(self.base.infos if self.base else ()))))

    def depth(self, name: str) -> Depth | None:
        """The block that a parameter belongs to and the number of blocks, read from the names; None outside the blocks."""
        return depth_of(name, self.stacks)

    def coefficient(self, name: str, task: str) -> float:
        """What an expert's delta of one parameter is multiplied by: 1 without a mix."""
        return self.mix.coefficient(task, self.depth(name)) if self.mix else 1.0

    def divisor(self, name: str) -> float:
        """What a mean over the experts divides by: the sum of their coefficients, T without a mix.

        Raises InputError where it is 0, which leaves a mean without meaning.
        """
        if not self.mix:
            return len(self.tasks)
        found = sum(self.coefficient(name, task) for task in self.tasks)
        if abs(found) < 1e-9:
            raise InputError(f"weights: expected weights whose sum is not 0, as a mean divides by it, got 0 at {name}")
        return found

    @property
    def fingerprint(self) -> str:
        """Content hash of the base and of every expert with its name and place, of how q, k and v are grouped, and of the mix."""
        parts = [self.base.fingerprint if self.base else "no base"]
        parts += [f"{task}={expert.fingerprint}" for task, expert in self.experts.items()]
        parts += [f"fit={self.fit.to_data()}"] if self.fit.to_data() else []
        parts += [f"qkv={self.qkv}"] if any(one.stored is not one for one in self._checkpoints) else []
        parts += [f"mix={self.mix.to_data()}"] if self.mix else []
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def state(self) -> str:
        """Hash of the state of every file at the opening (device, inode, size, time) and of how the files are put together.

        It changes where ``fingerprint`` does, and reads nothing: what pages show is kept under it. A file whose time was set
        back after it was written to would escape it, so what says what a file holds takes the fingerprint.
        """
        settings = {"fit": self.fit.to_data(), "qkv": self.qkv, "mix": self.mix.to_data(), "tolerance": self.tolerance}
        return state_of(self.base, self.experts, settings)

    @property
    def in_rows(self) -> bool:
        """Whether some rows of a parameter can be read alone from every file: whole models, as they are stored."""
        return all(isinstance(one, StoredCheckpoint) for one in self._checkpoints)

    def delta(self, name: str, task: str) -> Delta:
        """Delta of one parameter of one expert in float32, times its coefficient; LowRank or dense for an adapter."""
        if name not in self.experts[task].infos:
            parameter = self.parameters[name]
            return LowRank.zeros(parameter.sides) if parameter.kind is Kind.MATRIX else torch.zeros(parameter.shape)
        value = self.experts[task].read(name)
        if isinstance(value, LowRank):
            return self._weighed(LowRank(value.left.float(), value.right.float()), name, task)
        return self._weighed(value.float().sub_(self.base_tensor(name).float()), name, task)

    def deltas(self, name: str, tasks: Sequence[str] | None = None, rows: Rows | None = None) -> list[Delta]:
        """Deltas of one parameter of every expert, in task order; the base's tensor is read once.

        ``rows`` are the first and the one after the last, where some rows alone are wanted of a set that is ``in_rows``.
        """
        tasks = self.tasks if tasks is None else tasks
        if self.kind == "lora":
            return [self.delta(name, task) for task in tasks]
        base = self.base_tensor(name, rows).float()
        # What is read is this call's own, so it may be changed in place.
        moved = (_tensor(self.experts[task], name, rows).float().sub_(base) for task in tasks)
        return [self._weighed(delta, name, task) for delta, task in zip(moved, tasks, strict=True)]

    def _weighed(self, delta: Delta, name: str, task: str) -> Delta:
        coefficient = self.coefficient(name, task)
        return delta if coefficient == 1 else delta * coefficient

    def base_tensor(self, name: str, rows: Rows | None = None) -> Tensor:
        """The base's own tensor, or some of its rows, in the file's dtype; raises InputError where the set has no base."""
        if self.base is None:
            raise InputError("expected a base model for this, got adapters alone")
        return _tensor(self.base, self.home(name), rows)

    def home(self, name: str) -> str:
        """The base's tensor that a parameter changes: the original, where it is a copy."""
        return self.report.copies.get(name, name)

    def select(self, tasks: Sequence[str]) -> TaskVectors:
        """The same set with some of its tasks, in the given order. Raises InputError for an unknown task."""
        unknown = [task for task in tasks if task not in self.experts]
        if unknown or not tasks:
            raise InputError(f"tasks: expected some of {', '.join(self.tasks)}, got {', '.join(unknown) or 'none'}")
        if self.plain is not None:
            return self.plain.select(tasks).mixed(self.mix.of_tasks(tasks))
        experts = {task: self.experts[task] for task in tasks}
        return replace(self, experts=experts, memo=Memo())


def _tensor(checkpoint: Checkpoint, name: str, rows: Rows | None) -> Tensor:
    """Whole weights, or some rows of them, fresh."""
    if rows is None:
        return checkpoint.tensor(name)
    value = checkpoint.read_rows(name, *rows)
    assert isinstance(value, Tensor)  # who asks for rows has made sure that the set is in_rows
    return value


def open_set(
    base: Source | None, experts: Mapping[str, Source], qkv: str = STORED, fit: Fit | None = None
) -> tuple[Checkpoint | None, dict[str, Checkpoint]]:
    """Open every file of a set, q, k and v as asked for.

    Raises InputError where there is no expert, a full model without a base, or no q, k and v to be split or fused.
    """
    opened_base, opened = with_one_vocabulary(*_open_as_stored(base, experts, fit or Fit()), fit or Fit())
    opened = applied(opened_base, opened)
    everything = [*([opened_base] if opened_base else []), *opened.values()]
    if qkv != STORED and qkv in QKV and stored_qkv(name for one in everything for name in one.infos) == NONE:
        raise InputError(f"qkv: expected attention's q, k and v, to be merged {qkv}, got files without them")
    grouped = {task: regrouped(expert, qkv) for task, expert in opened.items()}
    return opened_base and regrouped(opened_base, qkv), grouped


def _open_as_stored(
    base: Source | None, experts: Mapping[str, Source], fit: Fit
) -> tuple[Checkpoint | None, dict[str, Checkpoint]]:
    if not experts:
        raise InputError("expected at least one expert, got none")
    opened = {task: _open(source, fit.weights) for task, source in experts.items()}
    opened_base = None if base is None else _open(base, fit.weights)
    _check_averaged(opened, fit)
    kinds = {isinstance(expert, LoraCheckpoint) for expert in opened.values()}
    if kinds == {True, False}:
        raise InputError("expected experts of one kind, got LoRA adapters and full models in one set")
    if opened_base is None and kinds == {False}:
        raise InputError("expected a base model to subtract from the full fine-tuned experts, got none")
    if isinstance(opened_base, LoraCheckpoint):
        raise InputError(f"expected a full model as the base, got a LoRA adapter: {opened_base.path}")
    if kinds == {True}:
        check_bases(opened, fit)
    if opened_base is None:
        return None, under_common_names(factors_alone(opened))
    return opened_base, {task: on_base(opened_base, expert) for task, expert in opened.items()}


def _open(source: Source, weights: str) -> Checkpoint:
    return source if isinstance(source, Checkpoint) else open_checkpoint(source, weights)


def _check_averaged(experts: Mapping[str, Checkpoint], fit: Fit) -> None:
    """Raises InputError where averaged weights were asked for and an expert has none."""
    without = [task for task, expert in experts.items() if fit.weights == EMA and not expert.averaged]
    if without:
        raise InputError(f"weights: expected averaged (EMA) weights beside the live ones, got none in {', '.join(without)}")
