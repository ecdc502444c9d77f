"""The register of merging methods and the one loop over parameters that they all run in."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import torch

from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Assembly, Bench, TaskModule
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.declare import Choice, Declared, Flag, Number
from dcmerge.runtime.threads import ahead_on_all_threads
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta, TaskVectors

LayerFunction = Callable[..., Delta]
Modules = Mapping[str, TaskModule]
Progress = Callable[[float, str], None]

_METHODS: dict[str, Method] = {}

#: What a method can ask for, in words. "task": the task of an image must be known at inference.
NEEDS = {
    "weights": "the experts' weights",
    "base": "the base's own weights",
    "lora": "LoRA adapters as experts",
    "images": "unlabeled images",
    "labels": "labels",
    "training": "time to train",
    "task": "the task of every image",
}
#: Optional extras of the package, with the modules that each brings.
EXTRAS = {"rl": ("gymnasium", "stable_baselines3")}
#: Share of the progress that preparing takes where it looks at images.
_PREPARING = 0.9


@dataclass(frozen=True)
class Method:
    """A merging method: its layer function, its declared parameters and what a catalogue says of it.

    ``prepare(layers, **parameters)``, where given, sees the whole model first, and the images if it has an argument called
    ``calibration``; what it returns reaches the layer function as the keyword ``prepared``, and ``modules(layers, prepared)``
    makes each task's part of it, where the result has such. ``assemble(layers, prepared)`` makes a network of whole blocks of it,
    where that is the result. ``everywhere`` methods treat every kind of parameter; the others only matrices, and every other
    parameter becomes the mean of the deltas. ``fixed_scale`` says why α is not searched; ``quick`` holds the parameters of a
    first look; ``extra`` names the optional extra of the package that it needs (see EXTRAS). ``keeps_factors``: of
    LoRA adapters it never forms a dense product, and its result is factors too.
    """

    slug: str
    title: str
    idea: str
    formula: str
    source: str
    function: LayerFunction
    parameters: Mapping[str, Declared] = field(repr=False)
    needs: tuple[str, ...] = ("weights",)
    returns: str = "one model"
    everywhere: bool = False
    prepare: Callable[..., Any] | None = None
    modules: Callable[[Sequence[Layer], Any], Modules] | None = None
    usual_scale: float = 1.0
    fixed_scale: str = ""
    experts: int | None = None  # how many it merges, where it cannot merge any number
    quick: Mapping[str, Any] = field(default_factory=dict)
    assemble: Callable[[Sequence[Layer], Any], Assembly] | None = None
    extra: str = ""
    keeps_factors: bool = False

    @property
    def trains(self) -> bool:
        """It takes minutes rather than seconds: something is learned, step by step."""
        return "training" in self.needs

    def obstacle(self, vectors: TaskVectors, bench: Bench | None = None) -> str:
        """Why this set cannot be merged with the method, in half a sentence; empty where it can."""
        if "images" in self.needs and bench is None:
            return "needs unlabeled images of the tasks, got a set without images"
        if "images" in self.needs and (without := [task for task in vectors.tasks if task not in bench.tasks]):
            return f"needs images of every task, got none of {', '.join(without)}"
        if "images" in self.needs and not bench.same_names:
            return "looks into the encoder under open_clip's names, got a set that names its weights otherwise: convert it first"
        if "lora" in self.needs and vectors.kind != "lora":
            return "needs LoRA experts, got full fine-tuning"
        if "base" in self.needs and vectors.base is None:
            return "needs the base's own weights, got adapters without a base"
        if self.experts not in (None, len(vectors.tasks)):
            return f"merges {self.experts} experts, got {len(vectors.tasks)}"
        if self.extra and not all(map(importlib.util.find_spec, EXTRAS[self.extra])):
            modules = " and ".join(name.replace("_", "-") for name in EXTRAS[self.extra])
            return f"needs {modules}: pip install dcmerge[{self.extra}]"
        return ""

    def defaults(self) -> dict[str, Any]:
        return {name: declared.default for name, declared in self.parameters.items()}

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, validated, defaults filled in; raises InputError for an unknown name or a bad value."""
        for name in values:
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "no parameters"
                raise InputError(f"{self.slug}: expected {known}, got the unknown parameter {name!r}")
        return {n: d.constraint.check(n, values.get(n, d.default)) for n, d in self.parameters.items()}

    def parse(self, assignments: Mapping[str, str]) -> dict[str, Any]:
        """Parameters written as text (``--set rho=5``), validated; raises InputError."""
        unknown = [name for name in assignments if name not in self.parameters]
        if unknown:
            self.check(dict.fromkeys(unknown))
        return self.check({n: self.parameters[n].constraint.parse(n, text) for n, text in assignments.items()})


def merging_method(slug: str, **about: Any) -> Callable[[LayerFunction], LayerFunction]:
    """Register ``f(layer, *, parameters...) -> tensor`` as a method; the function itself is returned unchanged.

    Every keyword-only argument but ``prepared`` is a parameter and declares itself:
    ``rho: Annotated[float, Number("ρ", "…", 1, 100, 0.5)] = 5.0``. Raises ValueError for a slug used twice and TypeError for
    a parameter without declaration or default.
    """

    def register(function: LayerFunction) -> LayerFunction:
        if slug in _METHODS:
            raise ValueError(f"two methods are called {slug!r}")
        _METHODS[slug] = Method(slug=slug, function=function, parameters=_declared(function), **about)
        return function

    return register


def _declared(function: LayerFunction) -> dict[str, Declared]:
    hints = get_type_hints(function, include_extras=True)
    declared = {}
    for name, argument in inspect.signature(function).parameters.items():
        if argument.kind is not inspect.Parameter.KEYWORD_ONLY or name == "prepared":
            continue
        constraints = [c for c in getattr(hints[name], "__metadata__", ()) if isinstance(c, (Number, Choice, Flag))]
        if len(constraints) != 1 or argument.default is inspect.Parameter.empty:
            raise TypeError(f"{function.__name__}: {name} needs one Number, Choice or Flag and a default")
        declared[name] = Declared(name, constraints[0], argument.default)
    return declared


def methods() -> dict[str, Method]:
    """Every registered method by slug, in the order of registration."""
    return dict(_METHODS)


def fitting_methods(vectors: TaskVectors, bench: Bench | None = None) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods that can merge this set, and of the others why they cannot; both by slug."""
    obstacles = {slug: one.obstacle(vectors, bench) for slug, one in _METHODS.items()}
    fitting = {slug: one for slug, one in _METHODS.items() if not obstacles[slug]}
    return fitting, {slug: reason for slug, reason in obstacles.items() if reason}


def method(slug: str) -> Method:
    """The method of that slug; raises InputError for an unknown one."""
    if slug not in _METHODS:
        raise InputError(f"method: expected one of {', '.join(_METHODS)}, got {slug!r}")
    return _METHODS[slug]


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
        """The merged delta of one parameter."""
        if not (self.method.everywhere or layer.is_matrix):
            return layer.mean()
        known = {"prepared": self.prepared} if self.method.prepare else {}
        return self.method.function(layer, **self.values, **known)

    def modules(self) -> Modules:
        """What each task adds at inference; empty where the result is one model."""
        return self.method.modules(self.layers, self.prepared) if self.method.modules else {}

    def assembly(self) -> Assembly | None:
        """The network of whole blocks, where that is the result."""
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
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[tuple[str, Delta]]:
    """The only loop over parameters. Raises Cancelled between two of them."""
    progress = _part(progress, _PREPARING if "images" in plan.method.needs else 0.0, 1.0)
    wanted = [layer for layer in plan.layers if names is None or layer.name in names]
    # Factors are small: several weights at once scale, threads within one do not.
    ahead = bool(wanted) and plan.method.keeps_factors and wanted[0].vectors.kind == "lora"
    deltas = ahead_on_all_threads(plan.delta, wanted) if ahead else map(plan.delta, wanted)
    with closing(deltas) if ahead else nullcontext():
        for done, layer in enumerate(wanted):
            if cancelled and cancelled():
                raise Cancelled
            if progress:
                progress(done / len(wanted), layer.name)
            yield layer.name, next(deltas)


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    """The progress of one part, between ``start`` and ``end`` of the whole."""
    return None if progress is None else lambda share, text: progress(start + (end - start) * share, text)
