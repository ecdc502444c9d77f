"""Feature drift by depth: how far a merged encoder's features lie from each expert's, on that expert's own images.

LOT Merging (arXiv 2505.23859) minimises this difference layer by layer; here it is measured in the whole model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from dcmerge.errors import Cancelled
from dcmerge.evaluation.bench import Bench
from dcmerge.evaluation.models import Model, TaskModule, Weights

#: Images a task: what LOT Merging uses of each.
IMAGES = 64


@dataclass(frozen=True)
class Drift:
    """Mean squared difference to the expert's features over all entries, a row a task, a column a place.

    Places are the residual stream after each block (all tokens), and last the features of unit length that the heads read.
    ``base`` is the same of the base, the yardstick: 0 answers like the expert, the base's value like the base.
    """

    tasks: tuple[str, ...]
    places: tuple[str, ...]
    merged: tuple[tuple[float, ...], ...]
    base: tuple[tuple[float, ...], ...]
    images: int

    @property
    def mean(self) -> tuple[float, ...]:
        """Over tasks, a value a place."""
        return tuple(sum(column) / len(column) for column in zip(*self.merged, strict=True))

    @property
    def ratios(self) -> tuple[tuple[float | None, ...], ...]:
        """Drift over the base's, a row a task, a column a place; None where the expert is still the base."""
        rows = zip(self.merged, self.base, strict=True)
        return tuple(tuple(m / b if b > 0 else None for m, b in zip(*row, strict=True)) for row in rows)

    @property
    def relative(self) -> tuple[float | None, ...]:
        """Mean over tasks of the ratios to the base's drift; tasks whose expert is still the base there are left out."""
        known = [[ratio for ratio in column if ratio is not None] for column in zip(*self.ratios, strict=True)]
        return tuple(sum(column) / len(column) if column else None for column in known)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return {**asdict(self), "mean": list(self.mean), "relative": list(self.relative)}


def feature_drift(
    bench: Bench,
    weights: Weights | Model,
    *,
    split: str = "test",
    limit: int | None = IMAGES,
    cancelled: Callable[[], bool] | None = None,
) -> Drift | None:
    """Drift of a model, with each task's own part where it has one, from every expert; None for another architecture.

    The experts' features and the base's drift are remembered.
    """
    limit = min(limit or IMAGES, IMAGES)
    model = weights if isinstance(weights, Model) else Model(weights)
    if model.encoder is not None:  # its blocks are not the experts'
        return None

    def rows(of: Model) -> tuple[tuple[float, ...], ...]:
        return tuple(_task_drift(bench, of, task, split, limit, cancelled) for task in bench.tasks)

    base = bench.memo.get(("base drift", split, limit), lambda: rows(Model(bench.base_weights())))
    places = (*(f"block {block}" for block in range(1, bench.encoder.layers + 1)), "features")
    return Drift(tuple(bench.tasks), places, rows(model), base, limit)


def _task_drift(
    bench: Bench, model: Model, task: str, split: str, limit: int, cancelled: Callable[[], bool] | None
) -> tuple[float, ...]:
    if cancelled and cancelled():
        raise Cancelled
    images = bench.split(task, split, limit).images
    key = ("expert features", task, split, limit)
    expert = bench.memo.get(key, lambda: bench.encoder.block_features(bench.expert_weights(task), images))
    part = model.modules.get(task, TaskModule())
    own = bench.encoder.block_features(model.weights_for(task), images, edits=part.edits, repair=part.repair)
    return tuple((a.double() - b.double()).square().mean().item() for a, b in zip(own, expert, strict=True))
