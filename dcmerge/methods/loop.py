"""The one loop over parameters, in which every method runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Assembly, Bench
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.origins import checked_shape, guarded
from dcmerge.methods.registry import Method, Modules, method
from dcmerge.runtime.threads import ahead_on_all_threads
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta, TaskVectors

Progress = Callable[[float, str], None]
Finished = TypeVar("Finished")
#: Share of the progress that preparing takes where it looks at images.
_PREPARING = 0.9
#: Matrices are merged several at once where the result is held and the experts' stack of the largest takes no more bytes.
_SEVERAL = 256 << 20


@dataclass(frozen=True, eq=False)
class Plan:
    """A method ready to merge one set: everything that looks at the whole model is done (or learned).

    ``curve``: the loss of every step, where the method trained something.
    """

    method: Method
    layers: tuple[Layer, ...]
    values: Mapping[str, Any]
    prepared: Any = None
    curve: tuple[float, ...] = ()

    def delta(self, layer: Layer) -> Delta:
        """The merged delta of one parameter, times what the set's mix multiplies α by at its depth."""
        merged, alpha = self._merged(layer), layer.vectors.mix.alpha(layer.depth)
        return merged if alpha == 1 else merged * alpha

    def _merged(self, layer: Layer) -> Delta:
        if not (self.method.everywhere or layer.is_matrix):
            return layer.held_mean()
        known = {"prepared": self.prepared} if self.method.prepare else {}
        with guarded(self.method, layer.name):
            return checked_shape(self.method, layer, self.method.function(layer, **self.values, **known))

    def in_parts(self, layer: Layer) -> bool:
        """Whether a parameter may be merged some rows at a time."""
        return layer.vectors.in_rows and (self.method.by_rows or not (self.method.everywhere or layer.is_matrix))

    def parts(self, layers: Sequence[Layer] | None = None) -> list[Layer]:
        """What is merged at a time, of all parameters or of some: parts where that is allowed, else whole ones."""
        wanted = self.layers if layers is None else layers
        return [part for layer in wanted for part in (layer.parts() if self.in_parts(layer) else (layer,))]

    @property
    def all_in_parts(self) -> bool:
        """Whether every parameter may, and the result is one model."""
        return not self.method.modules and all(map(self.in_parts, self.layers))

    def modules(self) -> Modules:
        """What each task adds at inference; empty where the result is one model."""
        with guarded(self.method, "its parts of the tasks"):
            return self.method.modules(self.layers, self.prepared) if self.method.modules else {}

    def notes(self) -> tuple[str, ...]:
        """What the parameters mean for this set, in words."""
        if self.method.notes is None:
            return ()
        with guarded(self.method, "its notes"):
            known = {"prepared": self.prepared} if self.method.prepare else {}
            return self.method.notes(self.layers, **self.values, **known)

    def assembly(self) -> Assembly | None:
        """The network of whole blocks, where that is the result."""
        with guarded(self.method, "its network"):
            return self.method.assemble(self.layers, self.prepared) if self.method.assemble else None


def planned(
    vectors: TaskVectors,
    slug: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    bench: Bench | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Plan:
    """Check the parameters and the set, then let the method prepare; the same errors as ``merged_deltas``."""
    chosen = method(slug)
    values = chosen.check(parameters or {})
    if obstacle := chosen.obstacle(vectors, bench):
        raise InputError(f"{slug} {obstacle}")
    if cancelled and cancelled():
        raise Cancelled
    layers = tuple(Layer(vectors, parameter, dtype) for parameter in vectors.parameters.values())
    if not chosen.prepare:
        return Plan(chosen, layers, values)
    calibration = Calibration(bench, _part(progress, 0.0, _PREPARING), cancelled) if bench else None
    given = {"calibration": calibration} if "calibration" in inspect.signature(chosen.prepare).parameters else {}
    with guarded(chosen, "its preparation"):
        prepared = chosen.prepare(layers, **given, **values)
    return Plan(chosen, layers, values, prepared, tuple(calibration.curve) if calibration else ())


def merged_deltas(
    vectors: TaskVectors,
    slug: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    bench: Bench | None = None,
    names: tuple[str, ...] | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[str, Delta]]:
    """The merged task vector before α, one parameter at a time (``names`` picks some).

    Dense for full fine-tuning; for adapters as factors where the method can (``checkpoints.dense`` makes either dense).
    ``bench`` brings the images that some methods need.

    Raises InputError for bad parameters, and for a set that the method cannot merge, before anything is computed, and Cancelled
    between two parameters.
    """
    plan = planned(vectors, slug, parameters, bench=bench, progress=progress, cancelled=cancelled, dtype=dtype)
    yield from deltas_of(plan, names=names, progress=progress, cancelled=cancelled)


def deltas_of(
    plan: Plan,
    *,
    names: tuple[str, ...] | None = None,
    held: bool = False,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[tuple[str, Delta]]:
    """The merged delta of each parameter, whole; ``held`` where the caller keeps them all. Raises Cancelled on the way."""
    wanted = [layer for layer in plan.layers if names is None or layer.name in names]
    parts: list[Tensor] = []
    how: dict[str, Any] = {"held": held, "progress": progress, "cancelled": cancelled}
    for part, delta in finished(plan, lambda part, delta: (part, delta), wanted, **how):
        if part.rows is None:
            yield part.name, delta
            continue
        assert isinstance(delta, Tensor)  # adapters are not merged in parts
        parts.append(delta)
        if part.rows[1] == part.parameter.shape[0]:
            whole, parts = torch.cat(parts), []
            yield part.name, whole


def finished(
    plan: Plan,
    finish: Callable[[Layer, Delta], Finished],
    layers: Sequence[Layer] | None = None,
    *,
    held: bool = False,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Generator[Finished, None, None]:
    """``finish`` of each part of each parameter and its merged delta, in order: the only loop over parameters.

    Parts, and adapters' factors, are small: several at once scale, threads within one do not. They are computed ahead, ``finish``
    with them, while the last one is used. So are matrices, where the whole result is ``held`` anyway and memory is not what
    counts. Raises Cancelled between two of them.
    """
    progress = _part(progress, _PREPARING if "images" in plan.method.needs else 0.0, 1.0)
    layers = plan.layers if layers is None else layers
    parts = plan.parts(layers)

    def work(part: Layer) -> Finished:
        return finish(part, plan.delta(part))

    factors = bool(parts) and plan.method.keeps_factors and (parts[0].vectors.kind == "lora" or (held and _are_small(layers)))
    ahead = factors or (bool(parts) and all(map(plan.in_parts, layers)))
    with closing(ahead_on_all_threads(work, parts) if ahead else (work(part) for part in parts)) as results:
        for done, part in enumerate(parts):
            if cancelled and cancelled():
                raise Cancelled
            if progress:
                progress(done / len(parts), part.name)
            yield next(results)


def _are_small(layers: Sequence[Layer]) -> bool:
    return max(4 * layer.parameter.numel * len(layer.tasks) for layer in layers) <= _SEVERAL


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    """The progress of one part, between ``start`` and ``end`` of the whole."""
    return None if progress is None else lambda share, text: progress(start + (end - start) * share, text)
