"""Measures many merges of one set: accuracy on labeled validation images, and each measure without a label."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dcmerge.checkpoints import dense
from dcmerge.errors import Cancelled, InputError
from dcmerge.evaluation import Bench
from dcmerge.evaluation.confidence import mean_entropy
from dcmerge.evaluation.ordered import OrderedImages
from dcmerge.evaluation.tasks import Split
from dcmerge.merging.merge import merge
from dcmerge.methods import method
from dcmerge.spectral.linalg import frobenius_norm
from dcmerge.studies.inspection import MEASURES as DIRECTIONS
from dcmerge.studies.inspection import consistency, matrices
from dcmerge.studies.tells.looks import Look, Row
from dcmerge.studies.tells.measures import AGREEMENT, ALIGNMENT, COSINE, DIRSIM, DRIFT, ENTROPY, INTERFERENCE, LENGTH
from dcmerge.studies.tells.plan import Plan, Setting, settings
from dcmerge.vectors.layers import layer_of
from dcmerge.vectors.task_vectors import Delta, TaskVectors

Progress = Callable[[float, str], None]
IsCancelled = Callable[[], bool]


def looks(
    bench: Bench,
    plan: Plan,
    *,
    known: Mapping[int, Look] | None = None,
    on_look: Callable[[Look], None] | None = None,
    progress: Progress | None = None,
    cancelled: IsCancelled | None = None,
) -> list[Look]:
    """Every merge of the plan, in order.

    ``known``: looks of an earlier run by number, taken over where they are of the same setting; ``on_look`` hears of new ones.
    A merge that is not possible keeps its reason. Raises InputError for a set that cannot be studied so, and Cancelled.
    """
    wanted, known = settings(plan, bench.vectors), known or {}
    found, images = [], None
    for place, setting in enumerate(wanted):
        if cancelled and cancelled():
            raise Cancelled
        look = known.get(setting.number)
        if look is None or look.setting != setting:
            if progress:  # not of what is known: who tells the time left counts from the first word
                progress(place / len(wanted), setting.label)
            images = images or Images.of(bench, plan.limit, plan.unlabeled, cancelled)
            look = _look(bench, plan, setting, images, cancelled)
            if on_look:
                on_look(look)
        found.append(look)
    return found


@dataclass(frozen=True, eq=False)
class Images:
    """The images of each task, the first ``labeled`` of which are asked with their labels, the others without.

    ``experts``: the features of the task's own expert; ``base``: those of the base. Both are unit rows (N, d).
    """

    bench: Bench
    parts: Mapping[str, Split]
    labeled: Mapping[str, int]
    experts: Mapping[str, Tensor]
    base: Mapping[str, Tensor]

    @classmethod
    def of(cls, bench: Bench, labeled: int, unlabeled: int | None, cancelled: IsCancelled | None = None) -> Images:
        """So many of each task's validation images, or as many as there are in that proportion; ``unlabeled`` None: all others.

        Raises InputError where a task has fewer than two.
        """
        whole = None if unlabeled is None else labeled + unlabeled
        parts = OrderedImages(bench, "val", whole).parts()
        if small := [task for task, part in parts.items() if len(part) < 2]:
            raise InputError(f"expected at least two validation images of every task, got fewer of {', '.join(small)}")
        counts = {t: round(min(labeled, len(p) * labeled / whole if whole else labeled, len(p) - 1)) for t, p in parts.items()}
        experts = {t: bench.encoder.encode(bench.expert_weights(t), p.images, cancelled=cancelled) for t, p in parts.items()}
        base = encoded(bench, bench.base_weights(), parts, cancelled)
        return cls(bench, parts, counts, experts, base)

    def cosines(self, features: Tensor, task: str) -> Tensor:
        return features @ self.bench.tasks[task].head.T

    def accuracy(self, features: Tensor, task: str) -> float:
        """On the labeled images."""
        count = self.labeled[task]
        answers = self.cosines(features[:count], task).argmax(dim=1)
        return (answers == self.parts[task].labels[:count]).double().mean().item()

    def measures(self, features: Tensor, task: str) -> dict[str, float]:
        """On the images without labels."""
        count = self.labeled[task]
        own, expert, base = features[count:], self.experts[task][count:], self.base[task][count:]
        apart = (base.double() - expert.double()).square().mean().item()
        cosines = self.cosines(own, task)
        same = cosines.argmax(dim=1) == self.cosines(expert, task).argmax(dim=1)
        found = {ENTROPY: mean_entropy(cosines, self.bench.logit_scale.value), AGREEMENT: same.double().mean().item()}
        if apart > 0:
            found[DRIFT] = (own.double() - expert.double()).square().mean().item() / apart
        return found


def encoded(
    bench: Bench, weights: Mapping[str, Tensor], parts: Mapping[str, Split], cancelled: IsCancelled | None
) -> dict[str, Tensor]:
    """Unit features (N, d) of these images, by task."""
    return {task: bench.encoder.encode(weights, part.images, cancelled=cancelled) for task, part in parts.items()}


def _look(bench: Bench, plan: Plan, setting: Setting, images: Images, cancelled: IsCancelled | None) -> Look:
    """One merge at all its α."""
    started = time.perf_counter()
    vectors = bench.vectors if setting.tasks == bench.vectors.tasks else bench.vectors.select(setting.tasks)
    try:
        merged = merge(vectors, setting.slug, cancelled=cancelled, **setting.parameters).deltas
    except InputError as error:
        return Look(setting, error=str(error))
    rows = tuple(_rows(bench, plan, setting, images, vectors, merged, cancelled))
    return Look(setting, rows, seconds=round(time.perf_counter() - started, 2))


def _rows(
    bench: Bench,
    plan: Plan,
    setting: Setting,
    images: Images,
    vectors: TaskVectors,
    merged: Mapping[str, Delta],
    cancelled: IsCancelled | None,
) -> Iterator[Row]:
    chosen = method(setting.slug)
    directions, weights = directions_of(vectors, merged, cancelled), WeightMeasures.of(vectors, merged)
    parts = {task: images.parts[task] for task in setting.tasks if task in images.parts}
    for factor in (1.0,) if chosen.fixed_scale else plan.factors:
        alpha = round(factor * chosen.usual_scale_for(vectors, setting.parameters), 6)
        features = encoded(bench, bench.merged_weights(merged, alpha), parts, cancelled)
        accuracy, measures = {}, {**directions, INTERFERENCE: weights.interference(alpha), LENGTH: weights.lengths(alpha)}
        for task, own in features.items():
            expert = images.accuracy(images.experts[task], task)
            if expert:
                accuracy[task] = images.accuracy(own, task) / expert
            for name, value in images.measures(own, task).items():
                measures.setdefault(name, {})[task] = value
        yield Row(factor, alpha, accuracy, measures)


def directions_of(
    vectors: TaskVectors, merged: Mapping[str, Delta], cancelled: IsCancelled | None = None
) -> dict[str, dict[str, float]]:
    """DirSim, subspace alignment and cosine, mean over the matrices; none where no matrix has room for all tasks."""
    found = consistency(vectors, merged, cancelled=cancelled)
    if not found.layers:
        return {}
    ours: dict[str, str] = dict(zip(DIRECTIONS, (DIRSIM, ALIGNMENT, COSINE), strict=True))
    return {
        ours[name]: dict(zip(vectors.tasks, table.double().mean(dim=1).tolist(), strict=True))
        for name, table in found.measures.items()
    }


@dataclass(frozen=True, eq=False)
class WeightMeasures:
    """What follows from the weights at any α, by three sums over the matrices for each expert, (T,) float64.

    With M the merged matrix and D_t the expert's, WUDI's loss (arXiv 2503.08099) is Σ ‖(α M − D_t) D_tᵀ‖² / ‖D_t‖²
    = ``own`` − 2 α ``shared`` + α² ``merged``.
    """

    tasks: tuple[str, ...]
    own: Tensor
    shared: Tensor
    merged: Tensor
    length: float
    experts: Tensor

    @classmethod
    def of(cls, vectors: TaskVectors, merged: Mapping[str, Delta]) -> WeightMeasures:
        sums = torch.zeros(3, len(vectors.tasks), dtype=torch.float64)
        for name in matrices(vectors):
            M = dense(merged[name])
            for place, D in enumerate(layer_of(vectors, name).dense_deltas()):
                if energy := D.double().square().sum().item():
                    sums[:, place] += torch.tensor(_answers(M, D), dtype=torch.float64) / energy
        names = list(vectors.parameters)
        squares = [[frobenius_norm(delta) ** 2 for delta in vectors.deltas(name)] for name in names]
        length = sum(frobenius_norm(merged[name]) ** 2 for name in names) ** 0.5
        own, shared, answered = sums
        return cls(vectors.tasks, own, shared, answered, length, torch.tensor(squares, dtype=torch.float64).sum(dim=0).sqrt())

    def interference(self, alpha: float) -> dict[str, float]:
        """WUDI's loss over that of the base; 0 where the merge answers as the expert does."""
        values = (self.own - 2 * alpha * self.shared + alpha**2 * self.merged) / self.own.clamp_min(1e-300)
        return {task: value for task, value, own in zip(self.tasks, values.tolist(), self.own.tolist(), strict=True) if own > 0}

    def lengths(self, alpha: float) -> dict[str, float]:
        """‖α · merged‖ over the expert's ‖τ_t‖, all parameters."""
        return {t: abs(alpha) * self.length / own for t, own in zip(self.tasks, self.experts.tolist(), strict=True) if own > 0}


def _answers(M: Tensor, D: Tensor) -> tuple[float, float, float]:
    """‖D Dᵀ‖², ⟨M Dᵀ, D Dᵀ⟩ and ‖M Dᵀ‖², by products of the smaller side."""
    if D.shape[0] > D.shape[1]:
        G = D.T @ D
        return _inner(G, G), _inner(M, D @ G), _inner(M, M @ G)
    answer, wanted = M @ D.T, D @ D.T
    return _inner(wanted, wanted), _inner(answer, wanted), _inner(answer, answer)


def _inner(a: Tensor, b: Tensor) -> float:
    return (a.double() * b.double()).sum().item()
