"""EMR-Merging: one elected vector for all tasks, and for each task a mask and one number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.checkpoints import dense
from dcmerge.evaluation import TaskModule
from dcmerge.methods.declare import Choice
from dcmerge.methods.registry import merging_method
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta, TaskVectors


def elected_vector(D: Tensor) -> Tensor:
    """Per entry of (T, ...) the largest magnitude with the sign of the sum; a sum of 0 counts as negative."""
    sign = torch.where(D.sum(dim=0) > 0, 1.0, -1.0).to(D.dtype)
    return sign * (D * sign).amax(dim=0).clamp_min(0)


def _rescalers(layers: Sequence[Layer], *, size: str) -> dict[str, float]:
    """c_t = Σ|τ_t| / Σ|m_t ∘ τ|, which gives every masked vector its task vector's size.

    ``size`` "means" sums the mean of every parameter, so that a bias counts as much as a matrix; "entries" sums all entries.
    """
    tasks = layers[0].tasks
    own, masked = torch.zeros(len(tasks), dtype=torch.float64), torch.zeros(len(tasks), dtype=torch.float64)
    for layer in layers:
        D = layer.dense_deltas()
        unified = elected_vector(D)
        share = 1 / unified.numel() if size == "means" else 1.0
        own += share * D.abs().reshape(len(D), -1).double().sum(dim=1)
        masked += share * (unified.abs() * (D * unified > 0)).reshape(len(D), -1).double().sum(dim=1)
    return {task: float(a / b) if b > 0 else 1.0 for task, a, b in zip(tasks, own, masked, strict=True)}


def _modules(layers: Sequence[Layer], rescalers: dict[str, float]) -> dict[str, TaskModule]:
    bits = sum(layer.parameter.numel for layer in layers)
    return {
        task: TaskModule(delta=partial(modulated, layers[0].vectors, task, rescaler), size=bits // 32 + 1)
        for task, rescaler in rescalers.items()
    }


def modulated(vectors: TaskVectors, task: str, rescaler: float, name: str, merged: Delta) -> Tensor:
    """c_t m_t ∘ τ of one parameter: the entries in which the task agrees with the elected vector."""
    unified = dense(merged)
    agrees = dense(vectors.delta(name, task)).to(unified.dtype) * unified > 0
    return rescaler * agrees * unified


@merging_method(
    "emr",
    title="EMR-Merging",
    idea="Elect one vector with the largest entries that agree on a sign. Each task keeps a mask of the entries that it agrees "
    "with and one number that restores its size, so the task of an image must be known.",
    formula=r"\tau=\mathrm{sign}\Big(\sum_t\tau_t\Big)\circ\max_{t\text{ agrees}}|\tau_t|,"
    r"\quad\theta_t=\theta_0+c_t\,m_t\circ\tau,\ m_t=1[\tau_t\circ\tau>0]",
    source="Huang et al. 2024, arXiv 2405.17461",
    needs=("weights", "task"),
    returns="one model with a mask and a number for each task",
    everywhere=True,
    prepare=_rescalers,
    modules=_modules,
    fixed_scale="each task's own rescaler takes its place",
)
def emr(
    layer: Layer,
    *,
    prepared: dict[str, float],
    size: Annotated[
        str,
        Choice(
            "Size",
            "What a task's number restores. means: the sum of every parameter's mean magnitude, as in the authors' code. "
            "entries: the sum of all magnitudes.",
            ("means", "entries"),
        ),
    ] = "means",
) -> Tensor:
    """The elected vector; each task's mask and number are its module."""
    return elected_vector(layer.dense_deltas())
