"""The register of merging methods and the one loop over parameters that they all run in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

import torch

from dcmerge.errors import Cancelled, InputError
from dcmerge.layers import Layer
from dcmerge.methods.declare import Choice, Declared, Flag, Number
from dcmerge.task_vectors import Delta, TaskVectors

LayerFunction = Callable[..., Delta]
Progress = Callable[[float, str], None]

_METHODS: dict[str, Method] = {}


@dataclass(frozen=True)
class Method:
    """A merging method: its layer function, its declared parameters and what a catalogue says of it.

    ``prepare(layers, **parameters)``, where given, sees the whole model first; what it returns reaches the layer function
    as the keyword ``prepared``. ``everywhere`` methods treat every kind of parameter; the others only matrices, and every
    other parameter becomes the mean of the deltas.
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
    usual_scale: float = 1.0
    experts: int | None = None  # how many it merges, where it cannot merge any number

    def obstacle(self, vectors: TaskVectors) -> str:
        """Why this set cannot be merged with the method, in half a sentence; empty where it can."""
        if "lora" in self.needs and vectors.kind != "lora":
            return "needs LoRA experts, got full fine-tuning"
        if "base" in self.needs and vectors.base is None:
            return "needs the base's own weights, got adapters without a base"
        if self.experts not in (None, len(vectors.tasks)):
            return f"merges {self.experts} experts, got {len(vectors.tasks)}"
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


def fitting_methods(vectors: TaskVectors) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods that can merge this set, and of the others why they cannot; both by slug."""
    obstacles = {slug: one.obstacle(vectors) for slug, one in _METHODS.items()}
    fitting = {slug: one for slug, one in _METHODS.items() if not obstacles[slug]}
    return fitting, {slug: reason for slug, reason in obstacles.items() if reason}


def method(slug: str) -> Method:
    """The method of that slug; raises InputError for an unknown one."""
    if slug not in _METHODS:
        raise InputError(f"method: expected one of {', '.join(_METHODS)}, got {slug!r}")
    return _METHODS[slug]


def merged_deltas(
    vectors: TaskVectors,
    slug: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    names: tuple[str, ...] | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Iterator[tuple[str, Delta]]:
    """The merged task vector before α, one parameter at a time (``names`` picks some): the only loop over parameters.

    Dense for full fine-tuning; for adapters as factors where the method can (``checkpoints.dense`` makes either dense).

    Raises InputError for bad parameters, and for a set that the method cannot merge, before anything is computed, and Cancelled
    between two parameters.
    """
    chosen = method(slug)
    values = chosen.check(parameters or {})
    if obstacle := chosen.obstacle(vectors):
        raise InputError(f"{slug} {obstacle}")
    layers = [Layer(vectors, parameter, dtype) for parameter in vectors.parameters.values()]
    if cancelled and cancelled():
        raise Cancelled
    if chosen.prepare:
        values["prepared"] = chosen.prepare(layers, **values)
    wanted = [layer for layer in layers if names is None or layer.name in names]
    for done, layer in enumerate(wanted):
        if cancelled and cancelled():
            raise Cancelled
        if progress:
            progress(done / len(wanted), layer.name)
        if chosen.everywhere or layer.is_matrix:
            yield layer.name, chosen.function(layer, **values)
        else:
            yield layer.name, layer.mean()
