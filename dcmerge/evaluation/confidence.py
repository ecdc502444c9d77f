"""How sure a model is of its answers, and whether it is as sure as it is right.

Everything takes cosines (N, classes) between unit features and a task's head, and the logit scale that they are multiplied by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Bins of equal width, as Guo et al. 2017 (arXiv 1706.04599) take them.
BINS = 15
#: Where the best scale is looked for, and in how many halvings: far more than a float32 logarithm tells apart.
_LEAST, _MOST, _HALVINGS = 0.1, 1000.0, 50


@dataclass(frozen=True)
class Confidence:
    """Mean of the largest probability, accuracy, expected calibration error, and the scale of the least log loss."""

    mean: float
    accuracy: float
    error: float
    best_scale: float


def confidence_of(cosines: Tensor, labels: Tensor, scale: float) -> Confidence:
    """What one task's images tell at a logit scale."""
    sure, hits = certainty(cosines, scale), cosines.argmax(dim=1) == labels
    return Confidence(
        sure.mean().item(), hits.double().mean().item(), calibration_error(sure, hits), best_scale([(cosines, labels)])
    )


def certainty(cosines: Tensor, scale: float) -> Tensor:
    """The largest probability of each image, (N,) float64."""
    return (scale * cosines.double()).softmax(dim=1).amax(dim=1)


def mean_entropy(cosines: Tensor, scale: float) -> float:
    """Mean over images of H(p) in nats."""
    logs = (scale * cosines.double()).log_softmax(dim=1)
    return -(logs.exp() * logs).sum(dim=1).mean().item()


def calibration_error(sure: Tensor, hits: Tensor, bins: int = BINS) -> float:
    """Expected calibration error: Σ_b n_b / N · |accuracy of b − confidence of b| over bins of equal width.

    sure: (N,) probabilities of the answers; hits: bool (N,).
    """
    place = (sure * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, hits.double() - sure.double())
    return gaps.abs().sum().item() / len(sure)


def best_scale(tasks: list[tuple[Tensor, Tensor]]) -> float:
    """The logit scale of the least mean log loss over tasks, each (cosines, labels); between 0.1 and 1000.

    The loss is convex in the scale s with the slope mean_x(Σ_k p_k c_k − c_y), so that halving finds its zero.
    """
    low, high = math.log(_LEAST), math.log(_MOST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(_slope(*one, math.exp(middle)) for one in tasks) > 0 else (middle, high)
    return math.exp(low)


def _slope(cosines: Tensor, labels: Tensor, scale: float) -> float:
    cosines = cosines.double()
    expected = ((scale * cosines).softmax(dim=1) * cosines).sum(dim=1)
    return (expected - cosines.gather(1, labels[:, None])[:, 0]).mean().item()
