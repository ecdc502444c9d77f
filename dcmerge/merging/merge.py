"""From task vectors and a method to a merged model, held in memory or written as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dcmerge.errors import InputError
from dcmerge.evaluation import Assembly, Bench, Evaluation, Model, TaskModule
from dcmerge.merging.lengths import Length
from dcmerge.merging.output import Rounding, Target, Written, check_target, rounding_of, write_merged
from dcmerge.merging.recipe import (
    ADAPTER,
    ARITHMETIC,
    DELTA,
    MODEL,
    Recipe,
    check_scale,
    package_versions,
    plugin_of,
    qkv_of,
    recipe_of,
)
from dcmerge.merging.workers import parts_by
from dcmerge.methods import deltas_of, method, planned
from dcmerge.runtime.engines import Ray
from dcmerge.vectors.cache import MEMO_BYTES
from dcmerge.vectors.task_vectors import Delta, TaskVectors


@dataclass(frozen=True, eq=False)
class Merged:
    """A merged task vector before α: base + α · ``deltas`` is the merged model.

    ``modules`` holds what each task adds at inference, for methods with such parts. ``curve`` is the loss of every step,
    for methods that train. ``assembly`` is the merged model where it was put together from whole blocks; α is 1 then, and the
    deltas tell the same where the base has as many. ``dtype`` is that of the arithmetic. ``told``: what the method says of its
    parameters on this set.
    """

    vectors: TaskVectors
    method: str
    parameters: Mapping[str, Any]
    deltas: Mapping[str, Delta] = field(repr=False)
    modules: Mapping[str, TaskModule] = field(default_factory=dict, repr=False)
    curve: tuple[float, ...] = field(default=(), repr=False)
    assembly: Assembly | None = field(default=None, repr=False)
    dtype: torch.dtype = torch.float32
    told: tuple[str, ...] = ()

    def notes(self, scale: float, origin: str | None = None) -> tuple[str, ...]:
        """What a user should know of this merge at this α, and at one from there, in words; warnings begin with "warning: "."""
        return (*self.told, *self._length.notes(self.vectors, scale, origin))

    @cached_property
    def _length(self) -> Length:
        length = Length()
        for _ in length.counted(self.deltas.items()):
            pass
        return length

    def model(self, bench: Bench, scale: float) -> Model:
        """What is evaluated: base + α · merged, with each task's part. Raises InputError for a scale that has no meaning."""
        if self.assembly:
            check_whole_blocks(self.method, scale)
            return Model(self.assembly.weights, encoder=self.assembly.encoder)
        return bench.model(self.deltas, scale, self.modules)

    def recipe(
        self,
        scale: float | None = None,
        scale_origin: str | None = None,
        dtype: str | None = None,
        *,
        content: str = MODEL,
        adapter_rank: int | None = None,
        task: str | None = None,
    ) -> Recipe:
        """The recipe of this merge; hashes all inputs, which reads them once."""
        return recipe_of(
            self.vectors,
            self.method,
            self.parameters,
            scale,
            scale_origin,
            dtype,
            **_further(content, adapter_rank, task, self.dtype),
        )

    def save(
        self,
        path: str | Path,
        *,
        scale: float = 1.0,
        scale_origin: str = "given",
        delta_only: bool = False,
        task: str | None = None,
        card: bool = False,
        evaluation: Evaluation | None = None,
        replace: bool = False,
        dtype: str | None = None,
    ) -> Written:
        """Write base + α · merged in the base's own names and dtypes, or with ``delta_only`` α · merged in float32.

        ``dtype`` writes all floating-point weights of a model in "float32", "bfloat16" or "float16" instead; ``rounding`` of what
        is returned says what weights of 16 bits lose of the merged task vector.

        A path that does not end in ``.safetensors`` is a folder: it gets the base's shards, settings and vocabulary, and a model
        card, which ``card`` writes beside a single file too; ``evaluation`` is what it says of accuracies. An existing folder
        stays unless ``replace``, and then must be one that a merge wrote.

        Where every task has a model of its own, ``task`` says whose. The recipe goes into the metadata. Written to a temporary
        file or folder, then renamed: a failure leaves nothing behind. Raises InputError without a base (unless ``delta_only``),
        for a scale that is not a finite number, where a task is missing or the tasks' parts are not weights, and for a network of
        another depth than the base's.
        """
        target = Target(Path(path), DELTA if delta_only else MODEL, None, card, evaluation, replace, dtype)
        return self.write(target, scale, scale_origin, task)

    def rounding(self, scale: float = 1.0, *, dtype: str | None = None, task: str | None = None) -> Rounding:
        """What ``save`` would lose of the merged task vector by rounding, as ``rounding`` of what it returns says afterwards."""
        own = own_delta(self.method, self.modules, task)
        deltas = ((name, own(name, delta)) for name, delta in self.deltas.items())
        return rounding_of(self.vectors, deltas, check_scale(scale), dtype)

    def save_adapter(
        self,
        path: str | Path,
        *,
        rank: int | None = None,
        scale: float = 1.0,
        scale_origin: str = "given",
        task: str | None = None,
        evaluation: Evaluation | None = None,
        replace: bool = False,
    ) -> Written:
        """Write α · merged as a PEFT adapter folder that loads where the experts' adapters did.

        Of every weight at most ``rank`` directions; by default the exact rank where the method keeps factors, else the sum of the
        experts' ranks, and ``discarded`` of what is returned says what that leaves out. Raises InputError for full fine-tuning.
        """
        target = Target(Path(path), ADAPTER, rank, True, evaluation, replace)
        return self.write(target, scale, scale_origin, task)

    def write(self, target: Target, scale: float, scale_origin: str = "given", task: str | None = None) -> Written:
        """What ``save`` and ``save_adapter`` do, for a target with all its settings."""
        scale = check_scale(scale)
        check_depth(self.method, self.assembly, scale)
        own = own_delta(self.method, self.modules, task)
        deltas = ((name, own(name, delta)) for name, delta in self.deltas.items())
        said = {"content": target.content, "adapter_rank": target.rank, "task": task}
        return write_merged(
            self.vectors, deltas, target, scale, lambda dtype: self.recipe(scale, scale_origin, dtype, **said), self.told
        )


def merge(
    vectors: TaskVectors,
    slug: str,
    *,
    bench: Bench | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    dtype: torch.dtype = torch.float32,
    **parameters: Any,
) -> Merged:
    """Merge with a registered method: ``merge(vectors, "dc_merge", smoothing="linear", rho=5.0)``.

    ``bench`` brings the images of the tasks, for methods that need them. ``vectors.mixed(weights={"cats": 1.2})`` gives experts
    weights and profiles over depth. Raises InputError for an unknown method or parameter
    and Cancelled when ``cancelled()`` turns true.
    """
    plan = planned(vectors, slug, parameters, bench=bench, progress=progress, cancelled=cancelled, dtype=dtype)
    deltas = dict(deltas_of(plan, held=True, progress=progress, cancelled=cancelled))
    return Merged(vectors, slug, plan.values, deltas, plan.modules(), plan.curve, plan.assembly(), dtype, plan.notes())


def merge_to_file(vectors: TaskVectors, slug: str, path: str | Path, *, delta_only: bool = False, **how: Any) -> Written:
    """``merge(...).save(...)`` one parameter at a time; see ``merge_to``."""
    return merge_to(vectors, slug, Target(Path(path), DELTA if delta_only else MODEL), **how)


def merge_to(
    vectors: TaskVectors,
    slug: str,
    target: Target,
    *,
    scale: float = 1.0,
    scale_origin: str = "given",
    task: str | None = None,
    bench: Bench | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    dtype: torch.dtype = torch.float32,
    workers: int | Ray = 1,
    **parameters: Any,
) -> Written:
    """``merge(...).save(...)`` or ``.save_adapter(...)`` one parameter at a time: each is written as it is merged, and not held.

    Only a method that surveys the whole model first may hold more. The file is the same, byte for byte. ``workers`` processes
    share the parameters of whole models, each with its part of torch's threads, or the nodes of a cluster. Raises as both do;
    whatever goes wrong, nothing is left behind.
    """
    values = method(slug).check(parameters)
    further = _further(target.content, target.rank, task, dtype)
    recipe = Recipe({}, slug, values, check_scale(scale), scale_origin, plugin=plugin_of(slug), **further)
    return follow(recipe, vectors, target, bench=bench, progress=progress, cancelled=cancelled, workers=workers)


def follow(
    recipe: Recipe,
    vectors: TaskVectors,
    target: Target,
    *,
    bench: Bench | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    workers: int | Ray = 1,
) -> Written:
    """Merge these models as a recipe says, by ``merge_to``'s way; what is written holds that recipe.

    The names of the inputs are the recipe's where it has them, so that the file does not depend on where its inputs lie; hashes,
    dtypes and versions are those of this merge. Raises InputError and Cancelled as ``merge_to`` does.
    """
    with (vectors.plain or vectors).memo.within(MEMO_BYTES):  # every factor is needed once
        return _followed(recipe, vectors, target, workers, bench=bench, progress=progress, cancelled=cancelled)


def _followed(
    recipe: Recipe,
    vectors: TaskVectors,
    target: Target,
    workers: int | Ray,
    *,
    bench: Bench | None,
    progress: Callable[[float, str], None] | None,
    cancelled: Callable[[], bool] | None,
) -> Written:
    check_target(vectors, target)
    slug, scale = recipe.method, check_scale(recipe.scale)
    plan = planned(
        vectors, slug, recipe.parameters, bench=bench, progress=progress, cancelled=cancelled, dtype=ARITHMETIC[recipe.arithmetic]
    )
    check_depth(slug, plan.assembly(), scale)
    own = own_delta(slug, plan.modules(), recipe.task)
    stream = ((name, own(name, delta)) for name, delta in deltas_of(plan, progress=progress, cancelled=cancelled))
    parts = parts_by(workers, plan, target.content, recipe.task, progress=progress, cancelled=cancelled)
    return write_merged(vectors, stream, target, scale, lambda dtype: _as_followed(recipe, vectors, dtype), plan.notes(), parts)


def _as_followed(recipe: Recipe, vectors: TaskVectors, dtype: str) -> Recipe:
    found = recipe_of(vectors, recipe.method, recipe.parameters, recipe.scale, recipe.scale_origin, dtype).inputs
    inputs = {name: {**found[name], "file": recipe.inputs.get(name, found[name])["file"]} for name in found}
    return replace(
        recipe,
        inputs=inputs,
        dtype=dtype,
        tolerance=vectors.tolerance,
        zoo=vectors.zoo,
        qkv=qkv_of(vectors),
        fit=vectors.fit.to_data(),
        left_out=vectors.report.left_out,
        mix=vectors.mix,
        versions=package_versions(),
    )


def _further(content: str, rank: int | None, task: str | None, dtype: torch.dtype) -> dict[str, Any]:
    """What a recipe says beyond method, parameters and α."""
    return {"content": content, "adapter_rank": rank, "task": task, "arithmetic": str(dtype).removeprefix("torch.")}


def own_delta(slug: str, modules: Mapping[str, TaskModule], task: str | None) -> Callable[[str, Delta], Delta]:
    """What one task's model has instead of a merged delta; unchanged where there is one model for all tasks.

    Raises InputError where ``task`` is missing, unknown or of no use, and where a task's part is more than weights.
    """
    if not modules:
        if task is not None:
            raise InputError(f"task: {slug} makes one model for all tasks, expected no task, got {task!r}")
        return lambda name, merged: merged
    if any(module.edits or module.repair for module in modules.values()):
        raise InputError(
            f"{slug} adds parts to the encoder, which a file of weights cannot hold: evaluate or compare it, or choose another "
            "method"
        )
    if task is None or task not in modules:
        raise InputError(f"task: {slug} makes a model for each task, expected one of {', '.join(modules)}, got {task!r}")
    return modules[task].delta or (lambda name, merged: merged)


def check_whole_blocks(slug: str, scale: float) -> None:
    """Raises InputError for any α but 1 of a network that was put together from whole blocks."""
    if scale != 1:
        raise InputError(f"scale: {slug} chooses whole blocks, expected α = 1, got {scale:g}")


def check_depth(slug: str, assembly: Assembly | None, scale: float) -> None:
    """Raises InputError where a result cannot be written in the base's names: another depth, or whole blocks scaled."""
    if assembly is None:
        return
    check_whole_blocks(slug, scale)
    if len(assembly.blocks) != assembly.depth:
        raise InputError(
            f"{slug} chose {len(assembly.blocks)} blocks where the base has {assembly.depth}, which a file with the names of "
            "the base cannot hold: evaluate or compare it, or try another seed"
        )
