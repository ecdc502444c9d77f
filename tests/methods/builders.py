"""Methods run on the tiny bench, and layer functions on inputs that a test gives itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcmerge.evaluation import Bench
from dcmerge.evaluation.calibration import Calibration, LayerInputs
from dcmerge.methods.adaptation import entropy
from dcmerge.vectors.layers import layer_of
from tests.builders import full_set, merged_dense


def merged_on(bench: Bench, slug: str, parameters: Mapping[str, Any] | None = None, **how: Any) -> dict[str, Tensor]:
    """The merged task vector of the bench's experts, which may look at its images."""
    return merged_dense(bench.vectors, slug, parameters, bench=bench, **how)


def tokens(tasks: int, count: int, width: int, seed: int = 0) -> list[Tensor]:
    """Gaussian inputs (count, width) of a layer, float64, for each of several tasks."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(count, width, generator=draw, dtype=torch.float64) for _ in range(tasks)]


def grams(inputs: Sequence[Tensor]) -> Tensor:
    """Σ x xᵀ of every task, (T, d, d)."""
    return torch.stack([X.T @ X for X in inputs])


def solved(
    folder: Path,
    function: Callable[..., Any],
    deltas: Sequence[Tensor],
    inputs: Sequence[Tensor],
    base: Tensor | None = None,
    name: str = "weight",
    **parameters: Any,
) -> Tensor:
    """A layer function's answer in float64 for one parameter and the inputs (n, d) that each task shows it.

    For a vector that is no bias the inputs are the normalised ones of a norm.
    """
    own = {f"task{t}": {name: D} for t, D in enumerate(deltas)}
    vectors = full_set(folder, own, None if base is None else {name: base})
    prepared = {task: _inputs(name, deltas[0].ndim, X) for task, X in zip(vectors.tasks, inputs, strict=True)}
    return function(layer_of(vectors, name, torch.float64), prepared=prepared, **parameters)


def _inputs(name: str, dimensions: int, X: Tensor) -> LayerInputs:
    if dimensions == 2:
        return LayerInputs({name: X.T @ X}, {}, {name: len(X)})
    return LayerInputs({}, {} if name.endswith("bias") else {name: X.square().sum(dim=0)}, {name: len(X)})


def entropy_gradients(bench: Bench, deltas: Mapping[str, Tensor], images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """∂L/∂W of every weight where the loss is the entropy of base + deltas on these images."""
    weights = bench.base_weights()
    leaves = {name: (value + deltas.get(name, 0)).detach().clone().requires_grad_() for name, value in weights.items()}
    entropy(Calibration(bench), leaves, images).backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def first_step(gradient: Tensor, rate: float) -> Tensor:
    """What the first step of Adam adds."""
    return -rate * gradient / (gradient.abs() + 1e-8)
