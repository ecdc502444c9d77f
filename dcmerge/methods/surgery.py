"""Representation Surgery: a small correction of a merged model's embeddings for every task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.evaluation import TaskModule
from dcmerge.evaluation.calibration import Calibration, generator_of
from dcmerge.methods.adaptation import BATCH, RATE, adapt
from dcmerge.methods.declare import Number
from dcmerge.methods.from_images import SEED, SPLIT
from dcmerge.methods.registry import merging_method
from dcmerge.methods.repaired import ORIGIN, SCALE, Repaired, distance_to_teachers, modules_of, notes_on_scale, scaled_merge
from dcmerge.vectors.layers import Layer


def operated(z: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """ẑ = z − W_up ReLU(W_down z) of embeddings (N, d), W_down (r, d), W_up (d, r)."""
    return z - torch.relu(z @ down.T) @ up.T


def first_adapter(d: int, rank: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """W_down uniform in ±1/√d (Kaiming, a = √5) and W_up = 0: at first nothing changes."""
    bound = 1 / math.sqrt(d)
    return torch.empty(rank, d).uniform_(-bound, bound, generator=draw), torch.zeros(d, rank)


def _trained(
    layers: Sequence[Layer],
    *,
    calibration: Calibration,
    origin: str,
    merged_scale: float | None,
    rank: int,
    iterations: int,
    learning_rate: float,
    batch: int,
    images: str,
    seed: int,
) -> Repaired:
    bench, tasks = calibration.bench, layers[0].tasks
    deltas = scaled_merge(layers, calibration, origin, merged_scale)
    weights = bench.merged_weights(deltas, 1.0)
    students = {task: calibration.embeddings(weights, task, images) for task in tasks}
    teachers = {task: calibration.embeddings_of_expert(task, images) for task in tasks}
    adapters = {task: first_adapter(students[task].shape[1], rank, generator_of(task, seed)) for task in tasks}

    def loss(picks: dict[str, Tensor]) -> Tensor:
        return distance_to_teachers(lambda task, pick: operated(students[task][pick], *adapters[task]), teachers, picks)

    adapt(
        calibration,
        [part for adapter in adapters.values() for part in adapter],
        loss,
        calibration.picks(batch, images, seed),
        iterations=iterations,
        learning_rate=learning_rate,
        what="learning the corrections",
    )
    modules = {
        task: TaskModule(repair=partial(operated, down=down, up=up), size=down.numel() + up.numel())
        for task, (down, up) in adapters.items()
    }
    return Repaired(deltas, modules)


@merging_method(
    "surgery",
    title="Representation Surgery",
    idea="Keep the merged model and learn for each task a small correction of its embeddings towards those of the task's own "
    "expert, on unlabeled images. The task of an image must be known.",
    formula=r"\hat z_t=z-W_{up}^t\,\mathrm{ReLU}(W_{down}^t z),\quad\min\mathbb E_{x\in t}\|\hat z_t-z_t^{expert}\|_1",
    source="Yang et al. 2024, arXiv 2402.02705",
    needs=("weights", "base", "images", "labels", "training", "task"),
    returns="one model with a small adapter for each task",
    everywhere=True,
    prepare=_trained,
    modules=modules_of,
    fixed_scale="the α of the merge that is repaired is applied before",
    differs="One batch in each of 1000 steps on validation images; the authors take two in each of 500, on test images.",
    notes=notes_on_scale,
    quick={"iterations": 300},
)
def surgery(
    layer: Layer,
    *,
    prepared: Repaired,
    origin: Annotated[str, ORIGIN] = "task_arithmetic",
    merged_scale: Annotated[float | None, SCALE] = None,
    rank: Annotated[int, Number("Rank", "Width of each task's adapter.", 1, 4096, 1, integer=True, soft_high=128)] = 16,
    iterations: Annotated[
        int,
        Number(
            "Iterations",
            "Steps of Adam; the authors take two batches in each of 500 iterations.",
            0,
            100000,
            50,
            integer=True,
            soft_high=2000,
        ),
    ] = 1000,
    learning_rate: Annotated[float, RATE] = 1e-3,
    batch: Annotated[int, BATCH] = 16,
    images: Annotated[str, SPLIT] = "val",
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """α times the merge that is repaired; the adapters, which are the point, are each task's part of the result."""
    return prepared.deltas[layer.name].to(layer.dtype)
