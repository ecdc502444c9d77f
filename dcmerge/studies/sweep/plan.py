"""What a sweep is asked to do, as plain data that is checked before anything is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dcmerge.errors import InputError
from dcmerge.evaluation import Bench
from dcmerge.merging.recipe import check_scale
from dcmerge.methods import Method, method
from dcmerge.studies.sweep.axes import SCALE, Axis, axes, axis_text, cells
from dcmerge.studies.sweep.mixing import check_mix, is_mix, mix_of
from dcmerge.studies.sweep.points import COST, OBJECTIVES, accuracies
from dcmerge.vectors.mix import Mix
from dcmerge.vectors.task_vectors import TaskVectors

GRID, RANDOM, TPE = SAMPLERS = ("grid", "random", "tpe")
TRIALS, MOST_TRIALS = 40, 100_000


@dataclass(frozen=True)
class Plan:
    """A method, what is varied (``over``, see ``axis``), and how the points are chosen and judged.

    ``parameters`` and ``mix`` (as in a recipe): what is not varied. ``scale``: α of every point; None looks for each point's own.
    ``limit``: validation images a task (None: all); ``test_limit``: those of the one look at test, ``test`` whether there is one.
    ``early``: points stop when they are beaten.
    """

    slug: str
    over: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sampler: str = GRID
    trials: int = TRIALS
    objectives: tuple[str, ...] = ("mean",)
    scale: float | None = None
    limit: int | None = None
    early: bool = True
    test: bool = True
    test_limit: int | None = None
    seed: int = 0
    mix: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, slug: str, over: Sequence[str], **about: Any) -> Plan:
        """Checked, defaults filled in; raises InputError for anything that a sweep could not run with."""
        chosen = method(slug)
        axes_ = axes(chosen, over)
        swept = {one.name for one in axes_}
        given = dict(about.pop("parameters", None) or {})
        if both := sorted(swept & set(given)):
            raise InputError(f"over: expected parameters that are not set, got {', '.join(both)}, which is set as well")
        fixed = {name: value for name, value in chosen.check(given).items() if name not in swept}
        mix = Mix.from_data(about.pop("mix", None) or {})
        check_mix(mix, swept)
        plan = cls(slug, tuple(over), fixed, mix=mix.to_data(), **about)
        _check(plan, swept)
        plan.cells()
        return plan

    @property
    def method(self) -> Method:
        return method(self.slug)

    @property
    def axes(self) -> tuple[Axis, ...]:
        return axes(self.method, self.over)

    @property
    def accuracies(self) -> tuple[str, ...]:
        """The objectives that are accuracies; the first one chooses α."""
        return accuracies(self.objectives)

    def cells(self) -> list[dict[str, Any]]:
        """The points of a grid; of another sampler, which finds them as it goes, as many empty ones."""
        if self.sampler == GRID:
            return cells(self.method, self.parameters, self.axes, self.trials)
        return [{}] * self.trials

    def check(self, vectors: TaskVectors, bench: Bench) -> None:
        """Raises InputError where the method cannot merge this set, with what is fixed of the mixer or with what is varied."""
        fixed = Mix.from_data(self.mix)
        for mix in (fixed, mix_of(fixed, {one.name: 2.0 for one in self.axes if is_mix(one.name)})):
            if obstacle := self.method.obstacle(vectors.mixed(mix), bench):
                raise InputError(f"{self.slug} {obstacle}")

    @property
    def key(self) -> str:
        """Of the plan but for how many points: a plan with more of them goes on where the other one ended."""
        about = {name: value for name, value in asdict(self).items() if name not in ("trials", "test", "test_limit")}
        if self.sampler == GRID:
            about["trials"] = self.trials
        if not self.mix:  # as it was before there was a mixer: what was begun then goes on
            del about["mix"]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def text(self) -> str:
        """In words: "grid over rho from 1 to 20 (logarithmic)"."""
        mixed = f"; {text}" if (text := Mix.from_data(self.mix).text) else ""
        return f"{self.sampler} over {' and '.join(map(axis_text, self.axes))}{mixed}"


def _check(plan: Plan, swept: set[str]) -> None:
    if plan.sampler not in SAMPLERS:
        raise InputError(f"sampler: expected one of {', '.join(SAMPLERS)}, got {plan.sampler!r}")
    for name, least, most in (("trials", 1, MOST_TRIALS), ("seed", 0, 2**31 - 1)):
        value = getattr(plan, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InputError(f"{name}: expected an integer from {least} to {most}, got {value!r}")
    unknown = [one for one in plan.objectives if one not in OBJECTIVES]
    if unknown or not plan.objectives or len(set(plan.objectives)) < len(plan.objectives):
        raise InputError(
            f"objective: expected some of {', '.join(OBJECTIVES)}, each once, got {', '.join(plan.objectives) or 'none'}"
        )
    if plan.objectives == (COST,):
        raise InputError(f"objective: expected an accuracy beside {COST}, got {COST} alone")
    if plan.scale is not None:
        check_scale(plan.scale)
        if SCALE in swept:
            raise InputError(f"scale: expected no fixed α where α is varied, got {plan.scale:g}")
    for name in ("limit", "test_limit"):
        value = getattr(plan, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name}: expected at least 1 image a task or none for all, got {value!r}")
    for name in ("early", "test"):
        if not isinstance(getattr(plan, name), bool):
            raise InputError(f"{name}: expected true or false, got {getattr(plan, name)!r}")
