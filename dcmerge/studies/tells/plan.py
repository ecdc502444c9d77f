"""Which merges a study makes: methods by turns, first with their defaults, then with drawn parameters."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dcmerge.errors import InputError
from dcmerge.methods import Method, method, methods
from dcmerge.methods.declare import Number, values_text
from dcmerge.studies.sweep.axes import Axis, axis, idle_parameters, settled
from dcmerge.vectors.task_vectors import TaskVectors

MERGES, LIMIT, UNLABELED = 40, 50, 25
#: Multiples of a method's usual α.
FACTORS = (0.5, 1.0, 1.5, 2.0)
#: What is not drawn: these say how long or from where something is computed, not what.
_FIXED = ("seed", "iterations", "learning_rate", "duration")
#: Draws for one setting that none has had yet, and the fewest merges from which anything can be told.
_DRAWS, _FEWEST = 20, 3
#: Left out unless they are named: one merge takes as long as ten of another method, or a training.
_SLOW = ("doge",)


@dataclass(frozen=True)
class Plan:
    """One study. ``limit``: validation images a task with labels; ``unlabeled``: others of them whose labels nobody sees.

    ``methods``: slugs, none for all that need the weights alone. ``subsets``: every second merge is of some of the experts.
    """

    merges: int = MERGES
    methods: tuple[str, ...] = ()
    factors: tuple[float, ...] = FACTORS
    limit: int = LIMIT
    unlabeled: int = UNLABELED
    subsets: bool = False
    seed: int = 0

    @classmethod
    def of(cls, methods: Iterable[str] = (), factors: Iterable[float] = FACTORS, **about: Any) -> Plan:
        """Raises InputError for what no study could be made of."""
        _check_lists(methods, factors)
        made = cls(methods=tuple(dict.fromkeys(methods)), factors=tuple(sorted(set(map(float, factors)))), **about)
        if not isinstance(made.subsets, bool):
            raise InputError(f"subsets: expected true or false, got {made.subsets!r}")
        for name, low in (("merges", _FEWEST), ("limit", 2), ("unlabeled", 2), ("seed", 0)):
            value = getattr(made, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(f"{name}: expected an integer of at least {low}, got {value!r}")
        if 1.0 not in made.factors or not all(0 < one <= 10 for one in made.factors):
            raise InputError(f"factors: expected numbers above 0 and up to 10 with 1 among them, got {list(made.factors)}")
        for slug in made.methods:
            if why := unfit(method(slug)):
                raise InputError(f"{slug}: expected a method that merges weights alone into one model, got one that {why}")
        return made


def _check_lists(methods: Any, factors: Any) -> None:
    """Raises InputError unless these are lists of slugs and of numbers."""
    if not isinstance(methods, list | tuple) or not all(isinstance(one, str) for one in methods):
        raise InputError(f"methods: expected a list of slugs, got {methods!r}")
    if not isinstance(factors, list | tuple) or not all(isinstance(one, int | float) for one in factors):
        raise InputError(f"factors: expected a list of numbers, got {factors!r}")


@dataclass(frozen=True)
class Setting:
    """One merge: a method with its parameters, of these experts."""

    number: int
    slug: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Title, and the parameters that are not the defaults."""
        chosen = method(self.slug)
        other = chosen.changed(self.parameters)
        return f"{chosen.title}, {values_text(other)}" if other else chosen.title


def unfit(one: Method) -> str:
    """Why a method can take no part, in words that follow "that"; empty where it can."""
    if not one.gives_one_model:
        return "makes more than one model"
    others = [name for name in one.needs if name in ("images", "labels", "training", "task")]
    return f"needs {', '.join(others)}" if others else ""


def settings(plan: Plan, vectors: TaskVectors) -> list[Setting]:
    """The merges in order, the same for the same plan and experts; fewer where the methods have no more different ones."""
    fitting = {slug: method(slug) for slug in plan.methods} or {
        slug: one for slug, one in methods().items() if slug not in _SLOW and not unfit(one)
    }
    # Draws follow from the slug, so that another list of methods does not change a method's own.
    streams = {slug: _of_method(one, plan) for slug, one in fitting.items() if not one.obstacle(vectors)}
    if not streams:
        raise InputError(f"methods: expected one that can merge this set, got {', '.join(fitting)}")
    found: list[Setting] = []
    while streams and len(found) < plan.merges:
        for slug in list(streams):
            values = next(streams[slug], None)
            if values is None:
                del streams[slug]
            elif len(found) < plan.merges:
                found.append(Setting(len(found), slug, values, _experts(plan, len(found), vectors.tasks)))
    return found


def _experts(plan: Plan, number: int, tasks: Sequence[str]) -> tuple[str, ...]:
    """All of them, or of every second merge at least two, drawn."""
    if not plan.subsets or number % 2 == 0 or len(tasks) < 3:
        return tuple(tasks)
    draw = random.Random(f"{plan.seed} experts {number}")
    chosen = draw.sample(list(tasks), draw.randint(2, len(tasks) - 1))
    return tuple(task for task in tasks if task in chosen)


def _of_method(one: Method, plan: Plan) -> Iterator[dict[str, Any]]:
    """Defaults first, then draws that have not come yet, each parameter left as it is half the time."""
    draw, seen = random.Random(f"{plan.seed} {one.slug}"), set()
    free = {name: axis(one, name) for name, it in one.parameters.items() if name not in _FIXED and _ranged(it.constraint)}
    values = settled(one, {})
    while values is not None:
        seen.add(values_text(values))
        yield values
        values = next((new for _ in range(_DRAWS) if values_text(new := _drawn(one, free, draw)) not in seen), None)


def _ranged(constraint: Any) -> bool:
    """Whether the parameter has a usual range: a number that is bounded only by what it could be at all has none."""
    if not isinstance(constraint, Number):
        return True
    low, high = constraint.usual_range
    return math.isfinite(low) and math.isfinite(high) and not (constraint.integer and constraint.auto)


def _drawn(one: Method, free: Mapping[str, Axis], draw: random.Random) -> dict[str, Any]:
    chosen = {name: _value(axis, draw) for name, axis in free.items() if draw.random() < 0.5}
    values = settled(one, chosen)
    assert not idle_parameters(one, values) & {n for n, v in values.items() if v != one.parameters[n].default}
    return values


def _value(one: Axis, draw: random.Random) -> Any:
    if one.options:
        return draw.choice(one.options)
    if one.log and one.low > 0:
        return one.rounded(one.low * (one.high / one.low) ** draw.random())
    return one.rounded(draw.uniform(one.low, one.high))
