"""What decides whether merging methods can work on a set, measured before any of them is tried: the facts of a set with images.

Its numbers describe the base and the experts: how far apart they are, in which directions, how sure the base is, and whether the
entropy that adaptive methods descend falls where the accuracy rises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from dcmerge.evaluation import ZERO_SHOT, Bench, Evaluation, LogitScale
from dcmerge.evaluation.calibration import Calibration
from dcmerge.evaluation.confidence import Confidence, best_scale, calibration_error, certainty, confidence_of, mean_entropy
from dcmerge.methods import merged_deltas
from dcmerge.spectral.linalg import frobenius_norm
from dcmerge.studies.interference import cosines, cross_task_energy, inner_products
from dcmerge.vectors.task_vectors import Delta

Progress = Callable[[float, str], None]
IsCancelled = Callable[[], bool]

#: Values of α for the sum of task vectors: papers take 0.3.
_STEP, _LAST, _FURTHEST = 0.05, 0.5, 1.0
#: Unlabeled images a task for the layers' inputs.
_EXEMPLARS = 64


@dataclass(frozen=True)
class Step:
    """The base plus α times the sum of all task vectors: accuracy and mean entropy in nats, by task."""

    alpha: float
    accuracy: Mapping[str, float]
    entropy: Mapping[str, float]

    @property
    def mean_accuracy(self) -> float:
        return sum(self.accuracy.values()) / len(self.accuracy)

    @property
    def mean_entropy(self) -> float:
        return sum(self.entropy.values()) / len(self.entropy)


@dataclass(frozen=True, eq=False)
class Facts:
    """Everything on the same images. ``tasks`` are the experts', whose ``cosines`` (T, T) are taken over all merged parameters.

    ``lengths``: |τ_t| / |θ0|, θ0 the base's image tower. ``cross_energy``: rows and columns are the tasks with images, see
    ``cross_task_energy``; None for an encoder without linear layers. ``confidence``: of the base at ``logit_scale``, each task
    under its own head; ``error``: the calibration error of all images in one; ``best_scale``: the logit scale of the least log
    loss, mean over tasks. ``steps``: along the sum of task vectors, α ascending.
    """

    tasks: tuple[str, ...]
    logit_scale: LogitScale
    zero_shot: Evaluation
    average: Evaluation
    experts: Evaluation
    lengths: Mapping[str, float]
    cosines: tuple[tuple[float, ...], ...]
    cross_energy: tuple[tuple[float, ...], ...] | None
    confidence: Mapping[str, Confidence]
    error: float
    best_scale: float
    steps: tuple[Step, ...] = field(repr=False)

    @property
    def way_of_means(self) -> float | None:
        """How much of the way averaging closes: (mean of averaging − mean zero-shot) / (mean of the experts − mean zero-shot)."""
        return _share(self.average.mean - self.zero_shot.mean, self.experts.mean - self.zero_shot.mean)

    @property
    def ways(self) -> dict[str, float | None]:
        """The same of each task; None where its expert is no better than the base."""
        rows = {name: (self.average.tasks[name], one, self.experts.tasks[name]) for name, one in self.zero_shot.tasks.items()}
        return {n: _share(mean.accuracy - zero.accuracy, own.accuracy - zero.accuracy) for n, (mean, zero, own) in rows.items()}

    @property
    def mean_way(self) -> float | None:
        """Mean of the tasks' own shares, those without one left out."""
        return _mean([way for way in self.ways.values() if way is not None])

    @property
    def cosine_range(self) -> tuple[float, float, float] | None:
        """Mean, least and largest cosine of two task vectors; None of a single one."""
        others = _beside_diagonal(self.cosines)
        return (sum(others) / len(others), min(others), max(others)) if others else None

    @property
    def mean_cross_energy(self) -> float | None:
        """Over all ordered pairs of two tasks."""
        return _mean(_beside_diagonal(self.cross_energy or ()))

    @property
    def best(self) -> Step:
        """Task Arithmetic at its best α among the steps, the smallest of equals."""
        return max(self.steps, key=lambda step: step.mean_accuracy)

    @property
    def gain(self) -> float:
        """Task Arithmetic at its best α minus averaging, as a share."""
        return self.best.mean_accuracy - self.average.mean

    @property
    def agreements(self) -> dict[str, float | None]:
        """Spearman's rank correlation of falling entropy and rising accuracy over α from 0 to 0.5, by task: 1 where the surest
        is the best. None where one of the two never changes."""
        steps = [step for step in self.steps if step.alpha <= _LAST + 1e-9]
        return {
            task: rank_correlation([-step.entropy[task] for step in steps], [step.accuracy[task] for step in steps])
            for task in self.zero_shot.tasks
        }

    @property
    def mean_agreement(self) -> float | None:
        return _mean([value for value in self.agreements.values() if value is not None])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; accuracies are shares, entropies nats."""
        steps = [{**asdict(step), "mean_accuracy": step.mean_accuracy, "mean_entropy": step.mean_entropy} for step in self.steps]
        spread = dict(zip(("mean", "least", "largest"), self.cosine_range or (None,) * 3, strict=True))
        return {
            "tasks": list(self.tasks),
            "measured_on": self.zero_shot.measured_on,
            "logit_scale": asdict(self.logit_scale),
            "zero_shot": self.zero_shot.to_dict(),
            "average": self.average.to_dict(),
            "experts": self.experts.to_dict(),
            "way_closed_by_averaging": {"of_means": self.way_of_means, "mean_over_tasks": self.mean_way, "tasks": self.ways},
            "relative_lengths": dict(self.lengths),
            "cosines": {**spread, "matrix": [list(row) for row in self.cosines]},
            "cross_energy": {
                "mean": self.mean_cross_energy,
                "tasks": list(self.zero_shot.tasks),
                "matrix": self.cross_energy and [list(row) for row in self.cross_energy],
            },
            "base_confidence": {
                "tasks": {task: asdict(one) for task, one in self.confidence.items()},
                "mean": _mean([one.mean for one in self.confidence.values()]),
                "error": self.error,
                "best_scale": self.best_scale,
            },
            "sum_of_task_vectors": {
                "steps": steps,
                "best_alpha": self.best.alpha,
                "gain_over_averaging": self.gain,
                "rank_correlation": {"mean": self.mean_agreement, "tasks": self.agreements},
            },
        }


def facts_of(
    bench: Bench,
    *,
    split: str = "val",
    limit: int | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> Facts:
    """Measure a set on (at most ``limit`` a task of) the images of one split; on the demo in one to two minutes.

    Needs a base and an open_clip encoder's images. Raises InputError where something is missing and Cancelled when
    ``cancelled()`` turns true.
    """
    tell = progress or (lambda share, text: None)
    calibration = Calibration(bench, lambda share, text: tell(0.15 + 0.15 * share, text), cancelled)
    tell(0.0, "the experts, each on its own task")
    views = _Views(bench, split, limit, bench.experts(split=split, limit=limit, cancelled=cancelled), cancelled)
    energy = cross_task_energy(calibration, min(limit or _EXEMPLARS, _EXEMPLARS), split)
    tell(0.3, "angles between task vectors")
    products = inner_products(bench.vectors)
    zero_shot, answers = views.of(bench.base_weights(), ZERO_SHOT)
    merged = dict(merged_deltas(bench.vectors, "task_arithmetic", bench=bench, cancelled=cancelled))
    average, _ = views.of(bench.merged_weights(merged, 1 / len(bench.vectors.tasks)), "average")
    steps = _steps(views, merged, views.step(0.0, zero_shot, answers), lambda share, text: tell(0.35 + 0.65 * share, text))
    scale, pairs = bench.logit_scale.value, {task: (own, views.labels(task)) for task, own in answers.items()}
    return Facts(
        tasks=bench.vectors.tasks,
        logit_scale=bench.logit_scale,
        zero_shot=zero_shot,
        average=average,
        experts=views.experts,
        lengths=_relative_lengths(bench, products),
        cosines=_rows(cosines(products)),
        cross_energy=None if energy is None else _rows(energy),
        confidence={task: confidence_of(*pair, scale) for task, pair in pairs.items()},
        error=_error_of_all(pairs, scale),
        best_scale=best_scale(list(pairs.values())),
        steps=steps,
    )


@dataclass(frozen=True, eq=False)
class _Views:
    """What models make of the same images."""

    bench: Bench
    split: str
    limit: int | None
    experts: Evaluation
    cancelled: IsCancelled | None

    def labels(self, task: str) -> Tensor:
        return self.bench.split(task, self.split, self.limit).labels

    def of(self, weights: Mapping[str, Tensor], name: str) -> tuple[Evaluation, dict[str, Tensor]]:
        """Accuracies, and cosines (N, classes) with each task's own head."""
        images = {"split": self.split, "limit": self.limit}
        features = self.bench.features(weights, **images, cancelled=self.cancelled)
        found = self.bench.judged(features, name, **images, experts=self.experts)
        return found, {task: own @ self.bench.tasks[task].head.T for task, own in features.items()}

    def step(self, alpha: float, found: Evaluation, answers: Mapping[str, Tensor]) -> Step:
        entropies = {task: mean_entropy(own, self.bench.logit_scale.value) for task, own in answers.items()}
        return Step(alpha, {task: one.accuracy for task, one in found.tasks.items()}, entropies)


def _steps(views: _Views, merged: Mapping[str, Delta], first: Step, tell: Progress) -> tuple[Step, ...]:
    """From the base on in equal steps, and on while the last one is the best."""
    steps, count, most = [first], round(_LAST / _STEP), round(_FURTHEST / _STEP)
    while len(steps) <= count or (len(steps) <= most and steps[-1].mean_accuracy > max(s.mean_accuracy for s in steps[:-1])):
        alpha = round(len(steps) * _STEP, 6)
        tell(min(1.0, (len(steps) - 1) / count), f"the sum of the task vectors, α = {alpha:g}")
        steps.append(views.step(alpha, *views.of(views.bench.merged_weights(merged, alpha), "sum")))
    return tuple(steps)


def _relative_lengths(bench: Bench, products: Tensor) -> dict[str, float]:
    base = sum(frobenius_norm(value) ** 2 for value in bench.base_weights().values()) ** 0.5
    lengths = products.diagonal().sqrt().tolist()
    return {task: length / base for task, length in zip(bench.vectors.tasks, lengths, strict=True)}


def _error_of_all(pairs: Mapping[str, tuple[Tensor, Tensor]], scale: float) -> float:
    """The calibration error of all tasks' images in one."""
    sure = torch.cat([certainty(own, scale) for own, _ in pairs.values()])
    return calibration_error(sure, torch.cat([own.argmax(dim=1) == labels for own, labels in pairs.values()]))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's: the correlation of the ranks, equal values sharing their mean rank. None where a or b is constant."""
    ranks = torch.stack([_ranks(a), _ranks(b)])
    ranks = ranks - ranks.mean(dim=1, keepdim=True)
    lengths = ranks.norm(dim=1)
    return None if bool((lengths == 0).any()) else (ranks[0] @ ranks[1] / lengths.prod()).item()


def _ranks(values: Sequence[float]) -> Tensor:
    row = torch.tensor(values, dtype=torch.float64)
    return (row[:, None] > row).double().sum(dim=1) + (row[:, None] == row).double().sum(dim=1) / 2


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _rows(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))


def _beside_diagonal(rows: Sequence[Sequence[float]]) -> list[float]:
    return [value for i, row in enumerate(rows) for j, value in enumerate(row) if i != j]
