"""How task vectors relate before anything is merged: angles, lengths, and what each does to the other tasks' images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dcmerge.evaluation import Bench
from dcmerge.evaluation.calibration import Calibration, LayerInputs, layer_inputs
from dcmerge.methods.from_images import as_linear
from dcmerge.spectral.alignment import gram
from dcmerge.vectors.task_vectors import TaskVectors


def inner_products(vectors: TaskVectors) -> Tensor:
    """⟨τ_s, τ_t⟩ over all parameters that are merged, (T, T) float64; one parameter's deltas are in memory at a time."""
    found = torch.zeros(len(vectors.tasks), len(vectors.tasks), dtype=torch.float64)
    for name in vectors.parameters:
        found += gram(vectors.deltas(name))
    return found


def cosines(products: Tensor) -> Tensor:
    """cos(τ_s, τ_t) of inner products (T, T); 0 with a task vector of length 0."""
    lengths = products.diagonal().sqrt()
    return products / torch.outer(lengths, lengths).clamp_min(1e-300)


def cross_task_energy(calibration: Calibration, exemplars: int, split: str, seed: int = 0) -> Tensor | None:
    """How strongly a task's delta acts on the other tasks' images: E[s, t] = mean over layers l of e_l(s, t) / e_l(s, s), (T, T).

    e_l(s, t) = mean over tokens x of ‖D_s^l x‖² = tr(D_s^l G_t^l D_s^lᵀ) / n: the energy that the delta D_s of layer l adds to
    its output, where x are the n inputs that reach the layer in the **base** on images of task t, and G = Σ x xᵀ. 1 on the
    diagonal; 0 beside it where no expert moves the base on the others' images, so that their sum is every expert on its own
    task; 1 where a task vector does not tell tasks apart. Layers are the linear ones (patch embedding, attention's projections,
    MLPs, final projection) that s changes. Images of different tasks share much of what a layer sees (every token has a mean),
    so that even good experts stay well above 0.

    ``exemplars``: unlabeled images a task. None for an encoder without such layers.
    """
    bench = calibration.bench
    base, tasks = bench.base_weights(), list(bench.tasks)
    inputs: dict[str, LayerInputs] = {}
    for done, task in enumerate(tasks):
        calibration.tell(done / len(tasks), f"layer inputs of {task}")
        inputs[task] = layer_inputs(bench.encoder, base, calibration.images(task, exemplars, split, seed))
    if not inputs[tasks[0]].grams:
        return None
    return torch.stack([_relative_energies(base, bench, task, inputs) for task in tasks])


def _relative_energies(base: Mapping[str, Tensor], bench: Bench, expert: str, inputs: Mapping[str, LayerInputs]) -> Tensor:
    """One row of the table, (T,); 0 beside the diagonal of an expert that changes no layer."""
    weights, place = bench.expert_weights(expert), list(inputs).index(expert)
    ratios = []
    for name in inputs[expert].grams:
        D = as_linear(name, weights[name] - base[name]).double()
        energies = torch.stack([((D @ one.grams[name]) * D).sum() / one.tokens[name] for one in inputs.values()])
        if energies[place] > 0:
            ratios.append(energies / energies[place])
    return torch.stack(ratios).mean(dim=0) if ratios else torch.eye(len(inputs), dtype=torch.float64)[place]
