"""The register of merging methods: what each declares of itself."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, get_type_hints

from dcmerge.errors import InputError
from dcmerge.evaluation import Assembly, Bench, TaskModule
from dcmerge.methods.declare import Choice, Declared, Flag, Number
from dcmerge.methods.origins import Origin, check_foreign, origin_of
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.mix import CONSTANT
from dcmerge.vectors.task_vectors import Delta, TaskVectors

LayerFunction = Callable[..., Delta]
Modules = Mapping[str, TaskModule]

_METHODS: dict[str, Method] = {}
#: Where methods are registered that become known later, all at once, while this thread loads a plugin.
_STAGED: ContextVar[Staged | None] = ContextVar("staged", default=None)

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


@dataclass(frozen=True)
class Method:
    """A merging method: its layer function, its declared parameters and what a catalogue says of it.

    ``prepare(layers, **parameters)``, where given, sees the whole model first, and the images if it has an argument called
    ``calibration``; what it returns reaches the layer function as the keyword ``prepared``, and ``modules(layers, prepared)``
    makes each task's part of it, where the result has such. ``assemble(layers, prepared)`` makes a network of whole blocks of it,
    where that is the result. ``everywhere`` methods treat every kind of parameter; the others only matrices, and every other
    parameter becomes the mean of the deltas. ``fixed_scale`` says why α is not searched; ``quick`` holds the parameters of a
    first look; ``extra`` names the optional extra of the package that it needs (see EXTRAS). ``keeps_factors``: of
    LoRA adapters it never forms a dense product, and its result is factors too. ``by_rows``: some rows of the merge need those
    rows of the deltas alone, beside what it prepared, so large weights are merged in parts, several at once. ``origin``: the
    plugin that brought it, None of what is built in.

    What a method does not promise it declares, and the check of its invariants takes that into account: ``order_matters`` (it
    draws at random for one task after another, or takes them in turn), not ``homogeneous`` (twice the deltas are not twice the
    merge), ``may_enlarge`` (the merge may be far longer than the experts' deltas), ``sees_factors`` (adapters are more to it
    than their products: it looks at B and A, at how many directions they have, or has other defaults for them).

    ``notes(layers, **parameters)``, with ``prepared`` where it prepares, says in half sentences what these values mean for this
    set; one that begins with "warning: " is a warning. ``separable``: what is made of each delta by itself is summed or averaged,
    at most where signs agree, so that a weight of 0 leaves its expert out. ``differs`` says in a sentence how the defaults differ
    from what the authors published; empty: they do not. ``usual_scale_of(kind,
    tasks, **parameters)`` gives the usual α where it is not ``usual_scale`` for every kind of experts ("full" or "lora"), every
    number of them and all values.
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
    usual_scale_of: Callable[..., float] | None = None
    fixed_scale: str = ""
    experts: int | None = None  # how many it merges, where it cannot merge any number
    quick: Mapping[str, Any] = field(default_factory=dict)
    assemble: Callable[[Sequence[Layer], Any], Assembly] | None = None
    extra: str = ""
    keeps_factors: bool = False
    order_matters: bool = False
    homogeneous: bool = True
    may_enlarge: bool = False
    sees_factors: bool = False
    by_rows: bool = False
    separable: bool = False
    origin: Origin | None = None
    notes: Callable[..., tuple[str, ...]] | None = None
    differs: str = ""

    @property
    def label(self) -> str:
        """The title, and where the method is from if it is not built in."""
        return f"{self.title} ({self.origin.label})" if self.origin else self.title

    @property
    def trains(self) -> bool:
        """It takes minutes rather than seconds: something is learned, step by step."""
        return "training" in self.needs

    @property
    def gives_one_model(self) -> bool:
        """Whether one model of the base's layout serves every task: no part for each, and no network of whole blocks."""
        return not (self.modules or self.assemble)

    def obstacle(self, vectors: TaskVectors, bench: Bench | None = None) -> str:
        """Why this set cannot be merged with the method, in half a sentence; empty where it can."""
        if "images" in self.needs:
            if bench is None:
                return "needs unlabeled images of the tasks, got a set without images"
            if without := [task for task in vectors.tasks if task not in bench.tasks]:
                return f"needs images of every task, got none of {', '.join(without)}"
            if not bench.same_names:
                return "needs weights with open_clip's names, got other names: convert the set first"
        if "lora" in self.needs and vectors.kind != "lora":
            return "needs LoRA experts, got full fine-tuning"
        if "base" in self.needs and vectors.base is None:
            return "needs the base's own weights, got adapters without a base"
        if self.experts not in (None, len(vectors.tasks)):
            return f"merges {self.experts} experts, got {len(vectors.tasks)}"
        if vectors.mix and self.assemble:
            return "puts whole blocks together, which weights and profiles cannot scale: expected none of them"
        if vectors.mix.depth != CONSTANT and self.modules and "images" in self.needs:
            return "fits a part of each task to the merged model, which a profile of α would change afterwards: expected none"
        if self.extra and not all(map(importlib.util.find_spec, EXTRAS[self.extra])):
            modules = " and ".join(name.replace("_", "-") for name in EXTRAS[self.extra])
            return f"needs {modules}: pip install dcmerge[{self.extra}]"
        return ""

    def usual_scale_for(self, vectors: TaskVectors, values: Mapping[str, Any]) -> float:
        """The usual α for these experts merged with these parameters; missing ones are defaults."""
        if self.usual_scale_of is None:
            return self.usual_scale
        return self.usual_scale_of(vectors.kind, len(vectors.tasks), **{**self.defaults(), **values})

    def defaults(self) -> dict[str, Any]:
        return {name: declared.default for name, declared in self.parameters.items()}

    def changed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the values that are not the defaults; a name that the method does not have counts as changed."""
        missing = object()
        defaults = self.defaults()
        return {name: value for name, value in values.items() if value != defaults.get(name, missing)}

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


@dataclass(frozen=True)
class Staged:
    """What a plugin has registered so far while it is loaded."""

    methods: dict[str, Method]
    origin: Origin | None


def merging_method(slug: str, **about: Any) -> Callable[[LayerFunction], LayerFunction]:
    """Register ``f(layer, *, parameters...) -> tensor`` as a method; the function itself is returned unchanged.

    ``about`` are the fields of ``Method``; title, idea, formula and source must be there. Every keyword-only argument but
    ``prepared`` is a parameter and declares itself:
    ``rho: Annotated[float, Number("ρ", "…", 1, 100, 0.5)] = 5.0``. Raises InputError for a slug used twice, a parameter without
    declaration or default, and anything that an interface could not show.
    """

    def register(function: LayerFunction) -> LayerFunction:
        _check_fields(slug, about)
        made = Method(slug=slug, function=function, parameters=_declared(slug, function), **about)
        stage = _STAGED.get()
        made = replace(made, origin=stage.origin if stage else origin_of(function))
        if made.origin:
            check_foreign(made, NEEDS, EXTRAS)
        if (slug in _METHODS and not _gives_way(_METHODS[slug], made)) or (stage and slug in stage.methods):
            raise InputError(f"two methods are called {slug!r}")
        (stage.methods if stage else _METHODS)[slug] = made
        return function

    return register


def _check_fields(slug: str, about: Mapping[str, Any]) -> None:
    """Raises InputError for a field of ``Method`` that is missing, and for one that it does not have."""
    own = {one.name: one for one in fields(Method) if one.name not in ("slug", "function", "parameters", "origin")}
    required = [name for name, one in own.items() if one.default is MISSING and one.default_factory is MISSING]
    if missing := [name for name in required if name not in about]:
        raise InputError(f"{slug}: expected {', '.join(required)}, got no {' and no '.join(missing)}")
    if unknown := [name for name in about if name not in own]:
        raise InputError(f"{slug}: expected {', '.join(own)}, got the unknown field {unknown[0]!r}")


def _declared(slug: str, function: LayerFunction) -> dict[str, Declared]:
    hints = get_type_hints(function, include_extras=True)
    declared = {}
    for name, argument in inspect.signature(function).parameters.items():
        if argument.kind is not inspect.Parameter.KEYWORD_ONLY or name == "prepared":
            continue
        constraints = [c for c in getattr(hints.get(name), "__metadata__", ()) if isinstance(c, (Number, Choice, Flag))]
        if len(constraints) != 1 or argument.default is inspect.Parameter.empty:
            raise InputError(f"{slug}: parameter {name} needs one Number, Choice or Flag and a default")
        declared[name] = Declared(name, constraints[0], argument.default)
    return declared


def _gives_way(old: Method, new: Method) -> bool:
    """Whether a method is replaced: its file is loaded again, or it was typed into an interpreter, which is used to that."""
    if old.origin is None or new.origin is None:
        return False
    return old.origin.path == new.origin.path and (old.origin.path is not None or new.function.__module__ == "__main__")


@contextmanager
def staged(origin: Origin | None = None) -> Iterator[dict[str, Method]]:
    """What this thread registers inside, by slug; nobody else knows it before it is adopted."""
    stage = Staged({}, origin)
    token = _STAGED.set(stage)
    try:
        yield stage.methods
    finally:
        _STAGED.reset(token)


def adopt(found: Mapping[str, Method], origin: Origin) -> None:
    """Make methods known as those of a plugin, all at once; those that its file brought before are forgotten."""
    global _METHODS
    kept = {
        slug: one
        for slug, one in _METHODS.items()
        if slug not in found and not (origin.path and one.origin and one.origin.path == origin.path)
    }
    # One assignment: a thread that looks meanwhile sees the old register or the new one.
    _METHODS = kept | {slug: replace(one, origin=origin) for slug, one in found.items()}


def methods() -> dict[str, Method]:
    """Every registered method by slug, in the order of registration; the first call looks for plugins that are installed."""
    from dcmerge.methods.plugins import load_installed  # which needs this module

    load_installed()
    return dict(_METHODS)


def fitting_methods(vectors: TaskVectors, bench: Bench | None = None) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods that can merge this set, and of the others why they cannot; both by slug."""
    known = methods()
    obstacles = {slug: one.obstacle(vectors, bench) for slug, one in known.items()}
    fitting = {slug: one for slug, one in known.items() if not obstacles[slug]}
    return fitting, {slug: reason for slug, reason in obstacles.items() if reason}


def method(slug: str) -> Method:
    """The method of that slug; raises InputError for an unknown one."""
    known = methods()
    if slug not in known:
        raise InputError(f"method: expected one of {', '.join(known)}, got {slug!r}")
    return known[slug]
