"""What a job does, as plain data that is checked before the job is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from dcmerge.errors import InputError
from dcmerge.evaluation import EXPERTS, SPLIT_NAMES, ZERO_SHOT
from dcmerge.jobs.checks import (
    MethodChoice,
    check_fields,
    flag_of,
    limit_of,
    mix_of,
    one_method,
    scale_of,
    set_with_images,
    split_of,
)
from dcmerge.jobs.merge_specification import Merge
from dcmerge.merging.recipe import GIVEN
from dcmerge.methods import method
from dcmerge.studies.comparison import row_names
from dcmerge.studies.damage import Plan as DamagePlan
from dcmerge.studies.measuring import setting_names
from dcmerge.studies.sweep import Plan
from dcmerge.studies.tells.plan import FACTORS
from dcmerge.studies.tells.plan import Plan as TellsPlan

#: The steps of a sweep's look at test and of its outcome, and how many processes may share a sweep.
TEST_STEP, CHOSEN_STEP, MOST_WORKERS = "test", "chosen", 64
#: The steps of a damage map: the parts that are looked at, and that all looks are taken.
FRAME_STEP, MAP_STEP = "frame", "map"
#: The only step of a study of what tells: its merges lie in a journal that other studies of the same plan share.
STUDY_STEP = "study"


@dataclass(frozen=True)
class Compare:
    """A comparison of methods on a set with tasks; every row is a step of its own. Limits are images a task; ``mix`` as in a
    recipe holds for every method."""

    kind: ClassVar[str] = "compare"

    set: str
    methods: tuple[MethodChoice, ...]
    split: str = "test"
    limit: int | None = None
    val_limit: int | None = None
    diagnosed: bool = False
    mix: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Compare:
        """Raises InputError for anything that the comparison could not run with."""
        name = set_with_images(data.get("set"))
        given = data.get("methods")
        if not isinstance(given, (list, tuple)) or not given:
            raise InputError(f"methods: expected a list of at least one method, got {given!r}")
        chosen = tuple(map(MethodChoice.of, given))
        if twice := sorted({choice.slug for choice in chosen if chosen.count(choice) > 1}):
            raise InputError(f"methods: expected every setting of a method once, got one of {', '.join(twice)} more than once")
        limits = limit_of("limit", data), limit_of("val_limit", data)
        return cls(name, chosen, split_of(data), *limits, flag_of("diagnosed", data), mix_of(data))

    @property
    def label(self) -> str:
        titles = [method(choice.slug).title for choice in self.methods]
        what = ", ".join(titles) if len(titles) <= 2 else f"{len(titles)} methods"
        return f"Compare {what} on {self.set}"

    @property
    def steps(self) -> tuple[str, ...]:
        """The rows in order."""
        return (ZERO_SHOT, *row_names(list(self.parameters)), EXPERTS)

    @property
    def parameters(self) -> dict[str, Mapping[str, Any]]:
        """By the names of the rows."""
        names = setting_names(choice.slug for choice in self.methods)
        return {name: choice.parameters for name, choice in zip(names, self.methods, strict=True)}


@dataclass(frozen=True)
class FindScale:
    """The α of one method, chosen on validation: by accuracy, or without ``labels`` by agreement with the experts' answers.

    ``val_limit``: images a task; ``mix`` as in a recipe.
    """

    kind: ClassVar[str] = "scale"

    set: str
    method: MethodChoice
    val_limit: int | None = None
    mix: Mapping[str, Any] = field(default_factory=dict)
    labels: bool = True

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> FindScale:
        """Raises InputError for anything that the search could not run with."""
        name, chosen, labels = set_with_images(data.get("set")), one_method(data), flag_of("labels", data, True)
        if not labels and not method(chosen.slug).gives_one_model:
            raise InputError(f"labels: expected a method that gives one model for all tasks, got {chosen.slug}, which does not")
        return cls(name, chosen, limit_of("val_limit", data), mix_of(data), labels)

    @property
    def steps(self) -> tuple[str, ...]:
        """The experts' accuracies take labels too."""
        return ("set", EXPERTS, "scale") if self.labels else ("set", "scale")

    @property
    def label(self) -> str:
        return f"Find α of {method(self.method.slug).title} on {self.set}{'' if self.labels else ' without labels'}"


@dataclass(frozen=True)
class Evaluate:
    """One method beside base and experts. Without a ``scale``, α is chosen on validation first. Limits are images a task;
    ``mix`` as in a recipe."""

    kind: ClassVar[str] = "evaluate"
    steps: ClassVar[tuple[str, ...]] = ("set", ZERO_SHOT, EXPERTS, "merged")

    set: str
    method: MethodChoice
    scale: float | None = None
    scale_origin: str = GIVEN
    split: str = "test"
    limit: int | None = None
    val_limit: int | None = None
    mix: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Evaluate:
        """Raises InputError for anything that the evaluation could not run with."""
        limits = limit_of("limit", data), limit_of("val_limit", data)
        name, chosen = set_with_images(data.get("set")), one_method(data)
        return cls(name, chosen, *scale_of(data), split_of(data), *limits, mix_of(data))

    @property
    def label(self) -> str:
        return f"Evaluate {method(self.method.slug).title} on {self.set}, {SPLIT_NAMES.get(self.split, self.split)} images"


@dataclass(frozen=True)
class Sweep:
    """A sweep on a set with tasks, by several processes at once (``workers``); every point is a step of its own."""

    kind: ClassVar[str] = "sweep"

    set: str
    plan: Plan
    workers: int = 1

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Sweep:
        """Raises InputError for anything that the sweep could not run with."""
        name, given, workers = set_with_images(data.get("set")), data.get("plan"), data.get("workers", 1)
        check_fields("plan", given, Plan)
        about = dict(given or {})
        slug, over = about.pop("slug", None), about.pop("over", None)
        if not isinstance(slug, str) or not isinstance(over, (list, tuple)) or not all(isinstance(text, str) for text in over):
            raise InputError(f"plan: expected a method's slug and a list of what is varied, got {slug!r} and {over!r}")
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= MOST_WORKERS:
            raise InputError(f"workers: expected an integer from 1 to {MOST_WORKERS}, got {workers!r}")
        return cls(name, Plan.of(slug, over, **about), workers)

    @property
    def label(self) -> str:
        return f"Sweep {', '.join(axis.name for axis in self.plan.axes)} of {method(self.plan.slug).title} on {self.set}"

    @property
    def steps(self) -> tuple[str, ...]:
        """The points, then the look at test, then what was chosen."""
        points = tuple(map(point_step, range(len(self.plan.cells()))))
        return (*points, *([TEST_STEP] if self.plan.test else []), CHOSEN_STEP)


@dataclass(frozen=True)
class Damage:
    """A damage map of one method's merge, on validation images. Without a ``scale``, α is chosen there first."""

    kind: ClassVar[str] = "damage"
    steps: ClassVar[tuple[str, ...]] = ("scale", FRAME_STEP, MAP_STEP)

    set: str
    plan: DamagePlan
    scale: float | None = None
    scale_origin: str = GIVEN

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Damage:
        """Raises InputError for anything that the map could not be made with."""
        name, given = set_with_images(data.get("set")), data.get("plan")
        check_fields("plan", given, DamagePlan)
        about = dict(given or {})
        slug = about.pop("slug", None)
        if not isinstance(slug, str):
            raise InputError(f"plan: expected a method's slug, got {slug!r}")
        return cls(name, DamagePlan.of(slug, **about), *scale_of(data))

    @property
    def label(self) -> str:
        return f"Damage map of {method(self.plan.slug).title} on {self.set}"


@dataclass(frozen=True)
class Tells:
    """A study of what tells without labels, over many merges of a set with tasks."""

    kind: ClassVar[str] = "tells"
    steps: ClassVar[tuple[str, ...]] = (STUDY_STEP,)

    set: str
    plan: TellsPlan

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Tells:
        """Raises InputError for anything that the study could not be made with."""
        name, given = set_with_images(data.get("set")), data.get("plan")
        check_fields("plan", given, TellsPlan)
        about = dict(given or {})
        return cls(name, TellsPlan.of(about.pop("methods", ()), about.pop("factors", FACTORS), **about))

    @property
    def label(self) -> str:
        return f"What tells on {self.set}: {self.plan.merges} merges"


def point_step(number: int) -> str:
    """The name of a point's step."""
    return f"point-{number}"


Specification = Compare | Merge | FindScale | Evaluate | Sweep | Damage | Tells
KINDS = {kind.kind: kind for kind in (Compare, Merge, FindScale, Evaluate, Sweep, Damage, Tells)}
#: Jobs of one method may name its parameters beside it, as the command line does.
_BESIDE = {Compare.kind: (), Sweep.kind: (), Damage.kind: (), Tells.kind: ()}


def specification(data: Mapping[str, Any] | Specification) -> Specification:
    """The checked form of {"kind": "compare" or "merge", ...}; raises InputError for anything that could not run."""
    data = to_data(data) if isinstance(data, Specification) else data
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"kind: expected one of {', '.join(KINDS)}, got {data!r:.200}")
    check_fields(kind, data, KINDS[kind], "kind", *_BESIDE.get(kind, ("parameters",)))
    return KINDS[kind].of(data)


def to_data(spec: Specification) -> dict[str, Any]:
    """Plain data, from which ``specification`` makes the same again."""
    return {"kind": spec.kind, **asdict(spec)}


def plugins_for(spec: Specification) -> tuple[tuple[str, str], ...]:
    """Path and hash of every file that brings one of the methods: the worker, a process of its own, loads it again."""
    origins = [origin for slug in _slugs(spec) if (origin := method(slug).origin)]
    return tuple(dict.fromkeys((origin.path, origin.sha256) for origin in origins if origin.path))


def _slugs(spec: Specification) -> tuple[str, ...]:
    if isinstance(spec, Sweep | Damage):
        return (spec.plan.slug,)
    if isinstance(spec, Tells):
        return spec.plan.methods
    return tuple(choice.slug for choice in spec.methods) if isinstance(spec, Compare) else (spec.method.slug,)
