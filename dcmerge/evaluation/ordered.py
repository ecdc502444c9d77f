"""The images of a split in an order of which every beginning is a fair sample, so that a look can end early."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dcmerge.evaluation.bench import Bench
from dcmerge.evaluation.models import Model, Weights
from dcmerge.evaluation.tasks import Split

Hits = Mapping[str, Tensor]


def stratified_order(labels: Tensor, seed: int = 0) -> Tensor:
    """An order of N images, int64 (N,), in every beginning of which each class has its share, up to one image.

    The k-th of a class's n images, drawn at random, stands at (k + 1/2) / n of the way; equal places go by lot.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        drawn = torch.randperm(len(members), generator=generator)
        places[members[drawn]] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    lot = torch.randperm(len(labels), generator=generator)
    return lot[places[lot].argsort(stable=True)]


class OrderedImages:
    """The images of ``bench.split(task, split, limit)`` of every task, seen from the beginning on.

    A share of 0.25 means the first quarter of every task's images. Hits are bool (n,), by task, in the order of seeing.
    """

    def __init__(self, bench: Bench, split: str = "val", limit: int | None = None, seed: int = 0) -> None:
        self.bench, self.split, self.limit = bench, split, limit
        self._pools = {task: bench.split(task, split, limit) for task in bench.tasks}
        self._orders = {task: stratified_order(pool.labels, seed) for task, pool in self._pools.items()}

    def count(self, task: str, share: float) -> int:
        """How many images of a task a share is; at least one."""
        return max(1, math.ceil(share * len(self._pools[task]) - 1e-9)) if share > 0 else 0

    def images(self, share: float = 1.0) -> int:
        """Images a task at that share; of the largest task where they differ."""
        return max(self.count(task, share) for task in self._pools)

    def shares(self, least: int = 12) -> tuple[float, ...]:
        """1, and before it halves of it as long as they hold ``least`` images a task; ascending."""
        found = [1.0]
        while self.images() * found[0] / 2 >= least:
            found.insert(0, found[0] / 2)
        return tuple(found)

    def hits(
        self, model: Weights | Model, start: float = 0.0, end: float = 1.0, cancelled: Callable[[], bool] | None = None
    ) -> dict[str, Tensor]:
        """Which of the images between two shares a model gets right. Raises Cancelled."""
        return self.bench.hits(model, self.parts(start, end), cancelled=cancelled)

    def experts(self, cancelled: Callable[[], bool] | None = None) -> dict[str, Tensor]:
        """Which images each task's own expert gets right."""
        parts = self.parts(0.0, 1.0)
        own = {task: {task: part} for task, part in parts.items()}
        found = {t: self.bench.hits(self.bench.expert_weights(t), part, cancelled=cancelled) for t, part in own.items()}
        return {task: hits[task] for task, hits in found.items()}

    def in_order_of_split(self, hits: Hits) -> dict[str, Tensor]:
        """Hits of all images in the order of ``bench.split``: comparable with any other evaluation on these images."""
        return {task: torch.empty_like(own).scatter_(0, self._orders[task], own) for task, own in hits.items()}

    def parts(self, start: float = 0.0, end: float = 1.0) -> dict[str, Split]:
        """The images between two shares, by task, in the order of seeing."""
        return {
            task: self._pools[task].take(order[self.count(task, start) : self.count(task, end)])
            for task, order in self._orders.items()
        }
