"""The one training loop of methods that adapt to unlabeled images, and the losses that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.evaluation import choose_scale
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.declare import Number
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta

STEPS = Number(
    "Iterations",
    "Steps of Adam, each on one batch of every task. The default takes fewer than the papers, with a larger learning rate, so "
    "that a laptop needs only minutes.",
    0,
    100000,
    10,
    integer=True,
    soft_high=2000,
)
RATE = Number(
    "Learning rate",
    "About how far Adam moves a value in one step; the papers use 0.001.",
    0,
    10,
    1e-3,
    soft_high=0.1,
    soft_low=1e-4,
    log=True,
)
BATCH = Number("Batch", "Images a task in every step.", 1, 4096, 1, integer=True, soft_high=64)
START = Number(
    "Start",
    "The coefficients at the start; the papers use 0.3.",
    0,
    100,
    0.05,
    soft_high=3,
    auto="the best α on validation of the merge that it starts from, by the labels of its images",
)

#: Images a task on which an automatic start is chosen.
_START_IMAGES = 100


def notes_on_start(layers: Sequence[Layer], *, start: float | None, **_: object) -> tuple[str, ...]:
    """That an automatic start looks at labels, which the method itself does not need."""
    return () if start is not None else (f"its start is the best α by the labels of {_START_IMAGES} validation images a task",)


def adapt(
    calibration: Calibration,
    trainable: Sequence[Tensor],
    loss: Callable[[Any], Tensor],
    batches: Iterable[Any],
    *,
    iterations: int,
    learning_rate: float,
    what: str,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Adam (β 0.9, 0.999; no decay) on ``loss(batch)``: changes ``trainable`` in place, the last step counts.

    Every step's loss goes to the calibration's curve. No step is selected by any accuracy. Raises Cancelled between steps.
    """
    for value in trainable:
        value.requires_grad_()
    adam = torch.optim.Adam(trainable, lr=learning_rate)
    for done, batch in zip(range(iterations), batches, strict=False):
        calibration.tell(done / iterations, f"{what}: step {done + 1} of {iterations}")
        adam.zero_grad()
        found = loss(batch)
        found.backward()
        adam.step()
        if after_step:
            with torch.no_grad():
                after_step()
        calibration.curve.append(found.item())
    for value in trainable:
        value.requires_grad_(False)


def entropy(calibration: Calibration, weights: Mapping[str, Tensor], images: Mapping[str, Tensor]) -> Tensor:
    """Σ_t mean_x H(p_t(·|x)): how undecided the model is on every task's images with that task's own head, at its own scale."""
    bench = calibration.bench
    z = calibration.encoder.forward(weights, torch.cat(list(images.values())))
    z = torch.nn.functional.normalize(z, dim=-1)
    total = z.new_zeros(())
    for task, own in zip(images, z.split([len(batch) for batch in images.values()]), strict=True):
        logs = (bench.logit_scale.value * own @ bench.tasks[task].head.T).log_softmax(dim=-1)
        total = total - (logs.exp() * logs).sum(dim=-1).mean()
    return total


def stepped(base: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """base + deltas of the encoder's weights, differentiable."""
    return {name: value + deltas[name] if name in deltas else value for name, value in base.items()}


def starting_scale(calibration: Calibration, merged: Mapping[str, Delta], wanted: float | None) -> float:
    """The scale to start from: as wanted, or the merge's best α on (at most 100 labelled) validation images a task."""
    if wanted is not None:
        return wanted
    return choose_scale(calibration.bench, merged, limit=_START_IMAGES, cancelled=calibration.cancelled).value


def needed(calibration: Calibration | None, what: str) -> Calibration:
    """The calibration of a variant that needs one; InputError where the set has no images."""
    if calibration is None:
        raise InputError(f"{what} needs unlabeled images of the tasks, got a set without images")
    return calibration
