"""A method on trial: its merges of small sets, made once for all methods that are tried on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from dcmerge.checkpoints import dense
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.methods import Method, merged_deltas, method
from dcmerge.studies.small_sets import SHAPES, full_set, lora_set, random_deltas, random_factors, random_tensors, tiny_bench
from dcmerge.vectors.task_vectors import TaskVectors

FULL, LORA, IMAGES = "full", "lora", "images"
#: Every kind of parameter, outside the blocks and in them.
TRIED = SHAPES | {f"visual.transformer.resblocks.{block}.mlp.c_fc.weight": (16, 12) for block in (0, 1)}
ADAPTED = {"layers.0.self_attn.q_proj.weight": (16, 12), "layers.1.mlp.fc1.weight": (20, 16)}
#: Matrices with fewer rows or columns than there are tasks.
NARROW = {"wide": (2, 9), "tall": (9, 2), "row": (1, 9), "column": (9, 1), "dot": (1, 1), "square": (3, 3)}
NARROW_ADAPTED = {"q.weight": (4, 3), "v.weight": (3, 9)}
#: How far the experts of a small tower lie from its base.
_STEP = 0.3


class Violation(Exception):
    """An invariant does not hold; the message says what was found."""


class NotForThis(Exception):
    """The method does not merge such a set; the message says why."""


@dataclass(frozen=True, eq=False)
class Sets:
    """Small sets below a folder, each made when it is first asked for and shared by all trials."""

    folder: Path
    _made: dict[tuple, Any] = field(default_factory=dict, repr=False)

    def get(self, what: str, kind: str, tasks: int = 3) -> TaskVectors | Bench:
        """The set of that name ("usual", "doubled", …) with experts of that kind; of images a bench."""
        key = (what, kind, tasks)
        if key not in self._made:
            make = {FULL: self._full, LORA: self._lora, IMAGES: self._bench}[kind]
            self._made[key] = make(self.folder / f"{kind}-{what}-{tasks}", what, tasks)
        return self._made[key]

    def _full(self, folder: Path, what: str, tasks: int) -> TaskVectors:
        deltas = random_deltas(tasks, shapes=NARROW if what == "narrow" else TRIED)
        base = random_tensors(0, TRIED) if what == "usual" else None
        return full_set(folder, _changed(deltas, what, lambda delta, factor: factor * delta), base)

    def _lora(self, folder: Path, what: str, tasks: int) -> TaskVectors:
        ranks = (1, 3, 2)[:tasks] if what == "ragged" else (2,) * tasks
        shapes = NARROW_ADAPTED if what == "narrow" else ADAPTED
        factors = {f"task{t}": random_factors(t, rank, shapes) for t, rank in enumerate(ranks)}
        return lora_set(folder, _changed(factors, what, lambda pair, factor: (factor * pair[0], pair[1])), alpha=3)

    def _bench(self, folder: Path, what: str, tasks: int) -> Bench:
        shapes = tiny_bench(folder / "shapes", 1).encoder.shapes
        deltas = {t: {n: _STEP * d for n, d in own.items()} for t, own in random_deltas(tasks, shapes=shapes).items()}
        return tiny_bench(folder, deltas=_changed(deltas, what, lambda delta, factor: factor * delta))

    def products(self, tasks: int) -> TaskVectors:
        """The usual adapters as full fine-tuning: their dense products."""
        key = ("products", tasks)
        if key not in self._made:
            adapters = vectors_of(self.get("usual", LORA, tasks))
            own = {task: {name: dense(adapters.delta(name, task)) for name in adapters.parameters} for task in adapters.tasks}
            self._made[key] = full_set(self.folder / f"products-{tasks}", own)
        return self._made[key]


def _changed(experts: dict[str, dict], what: str, times: Callable[[Any, float], Any]) -> dict[str, dict]:
    """The experts of a set of that name: a factor on all or one of them, or one of them twice."""
    factors = {"doubled": dict.fromkeys(experts, 2.0), "unchanged": dict.fromkeys(experts, 0.0), "idle": {"task0": 0.0}}
    found = {task: {n: times(v, factors.get(what, {}).get(task, 1.0)) for n, v in own.items()} for task, own in experts.items()}
    return found | ({"task1": found["task0"]} if what == "twins" else {})


@dataclass(frozen=True, eq=False)
class Trial:
    """One method with its parameters, and the sets that it is tried on."""

    slug: str
    parameters: Mapping[str, Any]
    sets: Sets

    @property
    def method(self) -> Method:
        return method(self.slug)

    @property
    def kind(self) -> str:
        """What the method is at home with."""
        return IMAGES if "images" in self.method.needs else LORA if "lora" in self.method.needs else FULL

    @property
    def tasks(self) -> int:
        """How many experts it is usually given: as many as it can merge."""
        return self.method.experts or (2 if self.kind == IMAGES else 3)

    @property
    def usual(self) -> TaskVectors | Bench:
        return self.sets.get("usual", self.kind, self.tasks)

    @cached_property
    def usual_merge(self) -> dict[str, Tensor]:
        """The merge of the usual set, made once: never change it in place."""
        return self.merged(self.usual)

    def merged(self, models: TaskVectors | Bench, **how: Any) -> dict[str, Tensor]:
        """The merged task vector, dense. Raises NotForThis where the method says that it cannot merge this set."""
        vectors, bench = (models.vectors, models) if isinstance(models, Bench) else (models, None)
        if reason := self.method.obstacle(vectors, bench):
            raise NotForThis(f"it {reason}")
        return merged_dense(vectors, self.slug, self.parameters, **({"bench": bench} if bench else {}), **how)

    def refused(self, values: Mapping[str, Any]) -> str:
        """The sentence with which parameters are refused; empty where they are taken."""
        try:
            self.method.check(values)
        except InputError as error:
            return str(error)
        return ""


def merged_dense(vectors: TaskVectors, slug: str, parameters: Mapping[str, Any] | None = None, **how: Any) -> dict[str, Tensor]:
    """The merged task vector with every delta as one tensor."""
    return {name: dense(delta) for name, delta in merged_deltas(vectors, slug, parameters, **how)}


def vectors_of(models: TaskVectors | Bench) -> TaskVectors:
    """The task vectors of a set, with images or without."""
    return models.vectors if isinstance(models, Bench) else models


def parameters_of(models: TaskVectors | Bench) -> dict[str, tuple[int, ...]]:
    """Shapes of what is merged, by name."""
    return {name: parameter.shape for name, parameter in vectors_of(models).parameters.items()}


def turned(models: TaskVectors | Bench) -> TaskVectors | Bench:
    """The same set with its last task first."""
    vectors = vectors_of(models)
    order = [vectors.tasks[-1], *vectors.tasks[:-1]]
    return models.select(order) if isinstance(models, Bench) else vectors.select(order)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖, Frobenius."""
    return ((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-30)).item()
