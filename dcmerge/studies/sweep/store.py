"""The points of a sweep in an Optuna study on disk: several processes take them from it, and each is looked at once.

All points of a plan are put into the study before the first is looked at: those of a grid with their values, those of a sampler
without. Whoever is free takes the next one; the database hands each out once. What a process that died left half done is
taken back when the sweep goes on.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.evaluation.ordered import Hits
from dcmerge.runtime.plain import from_plain, to_plain
from dcmerge.studies.sweep.axes import Axis
from dcmerge.studies.sweep.plan import GRID, RANDOM, Plan
from dcmerge.studies.sweep.points import COST, Point

NAME = "sweep"
#: Where a point, its failure, and what all points are measured against lie in Optuna's attributes.
_POINT, _ERROR, _REFERENCES, _TEST, _CELL = "point", "error", "references", "test", "cell"
_PATIENCE = 60
#: A point that stopped early is pruned to Optuna. What is waiting or being looked at is left to do.
_FINISHED, _LEFT = (TrialState.COMPLETE, TrialState.PRUNED), (TrialState.WAITING, TrialState.RUNNING)

optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, OSError, KeyError) as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", cause)).splitlines()[0]
        raise InputError(
            f"sweep: expected an Optuna study that can be read and written in {shown(path)}, got: {reason}"
        ) from None


@dataclass(frozen=True)
class Taken:
    """A point to look at: Optuna's trial, its number, and its values, rounded as a person would write them.

    The number stays where the point is put back and taken again, as another trial.
    """

    trial: Trial
    number: int
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Contents:
    """What a study holds at one moment: finished points in the order of their numbers, why others failed, how many are left."""

    points: tuple[Point, ...]
    errors: Mapping[int, str]
    remaining: int


class Store:
    """The study in one SQLite file. ``reading``: it must be there, and nothing is made in it."""

    def __init__(self, path: Path, plan: Plan, worker: int = 0, *, reading: bool = False) -> None:
        self.path, self.plan = path, plan
        # What is finished does not change: it is read once.
        self._known: dict[int, Point] = {}
        self._seen: list[FrozenTrial] = []
        self._references: dict[str, Hits] | None = None
        self._distributions = {one.name: distribution(one, plan.sampler) for one in plan.axes}
        with _readable(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._storage = RDBStorage(
                f"sqlite:///{path}",
                engine_kwargs={"connect_args": {"timeout": _PATIENCE}},
                skip_table_creation=reading,
                skip_compatibility_check=reading,
            )
            self.study = self._opened(worker, reading)

    def _opened(self, worker: int, reading: bool) -> optuna.Study:
        if reading:
            return optuna.load_study(storage=self._storage, study_name=NAME)
        directions = ["minimize" if one == COST else "maximize" for one in self.plan.objectives]
        sampler = self._sampler(worker)
        return optuna.create_study(
            storage=self._storage, study_name=NAME, directions=directions, sampler=sampler, load_if_exists=True
        )

    def close(self) -> None:
        """Let go of the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _sampler(self, worker: int) -> optuna.samplers.BaseSampler:
        """A process that goes on must not draw what an earlier one drew: its seed depends on what is there."""
        seed = self.plan.seed + 7919 * worker
        if self.plan.sampler in (GRID, RANDOM):
            return optuna.samplers.RandomSampler(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)

    def prepare(self) -> None:
        """Put back what a dead process left, and put in what is still missing. For one process, before the others."""
        with _readable(self.path):
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self.study.tell(trial.number, state=TrialState.FAIL)
                self._put_back(trial)
            self._add_cells()
        done = len(self.study.get_trials(deepcopy=False, states=_FINISHED))
        self.study.sampler = self._sampler(done)

    def _add_cells(self) -> None:
        trials = self.study.get_trials(deepcopy=False)
        there = {
            trial.user_attrs.get(_CELL) for trial in trials if trial.state is not TrialState.FAIL or _ERROR in trial.user_attrs
        }
        wanted = self.plan.cells() if self.plan.sampler != RANDOM else self._drawn()
        for place, cell in enumerate(wanted):
            if place not in there:
                self._enqueue(cell, place)

    def _enqueue(self, values: Mapping[str, Any], cell: int | None) -> None:
        plain = {name: float(value) if self._is_float(name) else value for name, value in values.items()}
        self.study.enqueue_trial(plain, user_attrs={_CELL: cell})

    def _is_float(self, name: str) -> bool:
        return isinstance(self._distributions[name], FloatDistribution)

    def _drawn(self) -> list[dict[str, Any]]:
        """The points of a random sweep, drawn beforehand: the same whoever looks at them, however often it is cut off."""
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(self.plan.seed))
        return [study.ask(self._distributions).params for _ in range(self.plan.trials)]

    def _put_back(self, trial: FrozenTrial) -> None:
        self._enqueue({**trial.system_attrs.get("fixed_params", {}), **trial.params}, trial.user_attrs.get(_CELL))

    def retry_failed(self) -> None:
        """Points that could not be merged are put in again."""
        for trial in self._failed(self._read()):
            self._put_back(trial)

    def _failed(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The trials that failed for good: with a reason, and not tried again since."""
        last = {trial.user_attrs.get(_CELL): trial for trial in trials if _CELL in trial.user_attrs}
        return [trial for trial in last.values() if trial.state is TrialState.FAIL and _ERROR in trial.user_attrs]

    def take(self) -> Taken | None:
        """The next point; None where none is left."""
        with _readable(self.path):
            self._seen = self._read()
            if all(trial.state is not TrialState.WAITING for trial in self._seen):
                return None
            trial = self.study.ask(self._distributions)
            if _CELL not in trial.user_attrs:  # another process took the last one: this one is too many
                self.study.tell(trial, state=TrialState.FAIL)
                return None
        axes = {one.name: one for one in self.plan.axes}
        values = {n: axes[n].rounded(v) if axes[n].is_range else v for n, v in trial.params.items()}
        return Taken(trial, trial.user_attrs[_CELL], values)

    def finish(self, taken: Taken, point: Point, values: tuple[float, ...]) -> None:
        """Keep a point. One that stopped early is pruned to Optuna, where there is one objective."""
        trial = taken.trial
        with _readable(self.path):
            trial.set_user_attr(_POINT, to_plain(point))
            trial.set_user_attr("images", point.images)
            trial.set_user_attr("alpha", point.scale)
            if point.stopped and len(values) == 1:
                trial.report(values[0], point.images)
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                self.study.tell(trial, list(values))

    def fail(self, taken: Taken, reason: str) -> None:
        """A point that could not be merged."""
        with _readable(self.path):
            taken.trial.set_user_attr(_ERROR, reason)
            self.study.tell(taken.trial, state=TrialState.FAIL)

    def contents(self, *, again: bool = True) -> Contents:
        """What there is now, or without ``again`` what ``take`` has read: hundreds of points take a tenth of a second."""
        with _readable(self.path):
            trials = self._read() if again or not self._seen else self._seen
        for trial in trials:
            if trial.number not in self._known and trial.state in _FINISHED and _POINT in trial.user_attrs:
                self._known[trial.number] = _point(trial)
        errors = {trial.user_attrs[_CELL]: trial.user_attrs[_ERROR] for trial in self._failed(trials)}
        points = tuple(sorted(self._known.values(), key=lambda point: point.number))
        return Contents(points, errors, sum(trial.state in _LEFT for trial in trials))

    def _read(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def references(self) -> dict[str, Hits] | None:
        """The experts' and the base's hits on the sweep's images, once they are there."""
        if self._references is None and (found := self.study.user_attrs.get(_REFERENCES)) is not None:
            self._references = _hits(found)
        return self._references

    def keep_references(self, found: Mapping[str, Hits]) -> None:
        self.study.set_user_attr(_REFERENCES, to_plain(found))

    @property
    def tests(self) -> list[dict[str, Any]]:
        """The looks at the test split, as plain data."""
        return list(self.study.user_attrs.get(_TEST, []))

    def keep_test(self, found: Mapping[str, Any]) -> None:
        self.study.set_user_attr(_TEST, [*self.tests, json.loads(json.dumps(to_plain(found)))])


def _hits(data: Mapping[str, Mapping[str, str]]) -> dict[str, Hits]:
    return {
        name: {task: torch.tensor([sign == "1" for sign in text]) for task, text in own.items()} for name, own in data.items()
    }


def _point(trial: FrozenTrial) -> Point:
    return from_plain(Point, trial.user_attrs[_POINT])


def distribution(one: Axis, sampler: str) -> BaseDistribution:
    """Optuna's description of an axis. In a grid every number is a float between the ends, so that pictures have a scale."""
    options = one.options
    if options and not (sampler == GRID and all(isinstance(o, (int, float)) and not isinstance(o, bool) for o in options)):
        return CategoricalDistribution(options)
    low, high = (min(options), max(options)) if options else (one.low, one.high)
    if one.integer or (options and all(isinstance(o, int) for o in options)):
        return IntDistribution(int(low), int(high), log=one.log and low >= 1)
    step = one.step if one.step and not one.log and sampler != GRID else None
    if step:
        high = round(low + step * int((high - low) / step + 1e-9), 10)
    return FloatDistribution(float(low), float(high), log=one.log, step=step)
