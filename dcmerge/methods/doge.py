"""DOGE: one shared correction of all task vectors, found by gradient descent outside the tasks' common subspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.adam import ITERATIONS, descended
from dcmerge.methods.adaptation import BATCH, RATE, STEPS, needed
from dcmerge.methods.coefficients import combined, learned_coefficients
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.from_images import SEED, SPLIT
from dcmerge.methods.registry import merging_method
from dcmerge.methods.ties import trim_thresholds
from dcmerge.methods.usual_scales import as_long_as_of_eight
from dcmerge.spectral.alignment import kept_entries, per_task
from dcmerge.vectors.layers import Layer

_ROUNDING = 1e-5
#: η as a share of the mean length of the matrix's task vectors, and Adam's step as a share of the root mean square of its deltas.
#: At CLIP's lengths (0.2 to 0.4 a matrix, root mean square 2.8e-4) they give about the authors' 0.07 and 1e-4.
RELATIVE_ETA, RELATIVE_STEP = 0.3, 0.1
#: The step for adapters. The rows of a few adapters of low rank fill less than the matrix, so 400 of the steps above reach an
#: exact answer to them, by a correction six to nine times as long as a task vector: the merge of four of the demo's adapters was
#: five points below zero-shot. With this step it stays shorter than they are.
ADAPTER_STEP = 0.001


@dataclass(frozen=True, eq=False)
class Prepared:
    """Each task's smallest kept magnitude over all matrices (T,), and the merge where coefficients are learned."""

    thresholds: Tensor
    learned: Mapping[str, Tensor] | None = None


def _prepared(
    layers: Sequence[Layer],
    *,
    calibration: Calibration | None,
    stage: str,
    eta: float | None,
    density: float,
    divisor: float,
    iterations: int,
    learning_rate: float | None,
    adaptation_steps: int,
    adaptation_rate: float,
    batch: int,
    images: str,
    seed: int,
) -> Prepared:
    """Thresholds; for DOGE-AM the vectors (τ_t + Δ_t) ∘ m_t of all matrices too, and their coefficients from images."""
    matrices = [layer for layer in layers if layer.is_matrix]
    if not matrices:
        return Prepared(torch.zeros(len(layers[0].tasks)))
    thresholds = trim_thresholds(matrices, density)
    if stage == "task_arithmetic":
        return Prepared(thresholds)
    calibration, vectors, first = needed(calibration, "doge with stage adamerging"), {}, []
    for layer in matrices:
        D = layer.dense_deltas()
        lambdas = _scales(D, eta)
        shared = shared_directions(layer, float(len(D)))
        unit, step = _unit_and_step(layer, D, learning_rate)
        found = unit * corrections(D / unit, lambdas, shared, iterations, step)
        vectors[layer.name] = (D + found) * kept_entries(D, thresholds)
        first.append(lambdas)
    found = learned_coefficients(
        calibration,
        vectors,
        torch.stack(first),
        by_layer=True,
        clamp=False,
        iterations=adaptation_steps,
        learning_rate=adaptation_rate,
        batch=batch,
        images=images,
        seed=seed,
    )
    return Prepared(thresholds, {name: combined(D, found[name]) for name, D in vectors.items()})


def _scales(D: Tensor, eta: float | None) -> Tensor:
    """λ_t = η / ‖D_t‖, 0 of a task without change; (T,). η None is RELATIVE_ETA times the mean of the lengths that are not 0."""
    norms = D.flatten(1).norm(dim=1)
    if eta is None:
        eta = RELATIVE_ETA * float(norms.sum() / (norms > 0).sum().clamp_min(1))
    return torch.where(norms > 0, eta / norms.clamp_min(1e-30), 0.0)


def usual_scale_of(kind: str, tasks: int, *, stage: str, **_: object) -> float:
    """√(8/T), at least 1, for adapters, as for DC-Merge: all task vectors are made RELATIVE_ETA as long here, which fits eight.

    With learned coefficients, and for fully fine-tuned experts, it is 1.
    """
    few = kind == "lora" and stage == "task_arithmetic"
    return as_long_as_of_eight(tasks, 1.0) if few else 1.0


def _unit_and_step(layer: Layer, D: Tensor, learning_rate: float | None) -> tuple[float, float]:
    """The unit in which the matrices (T, m, n) are corrected, and Adam's step in it.

    Without a rate of one's own the unit is their root mean square: the gradient grows with the third power of the deltas, and
    that of small ones would vanish beside Adam's ε.
    """
    if learning_rate is not None:
        return 1.0, learning_rate
    step = ADAPTER_STEP if layer.vectors.kind == "lora" else RELATIVE_STEP
    return max(D.square().mean().sqrt().item(), 1e-30), step


@merging_method(
    "doge",
    title="DOGE",
    idea="Give all task vectors one length, and add to all of them a shared correction that makes their sum answer each task's "
    "own rows as that task's vector does, without touching the directions that the tasks share.",
    formula=r"\tau=\sum_t\lambda_t(\tau_t+\Delta)\circ m_t,\quad\lambda_t=\frac{\eta}{\|\tau_t\|},"
    r"\ \Delta=\arg\min\sum_j\big\|\langle\tau_j,\tau_j-\textstyle\sum_t\lambda_t(\tau_t+\Delta)\rangle_{\mathrm{row}}\big\|^2",
    source="Wei et al. 2025, arXiv 2501.01230",
    everywhere=True,
    prepare=_prepared,
    quick={"adaptation_steps": 25},
    homogeneous=False,
    sees_factors=True,
    usual_scale_of=usual_scale_of,
    differs="η and Adam's step follow the size of the deltas; the authors' 0.07 and 0.0001 are the same for CLIP's. With "
    "learned coefficients these start at η over the norm of each task vector, in the authors' code at 0.3. For adapters Adam's "
    "step is a hundredth of that, and the usual α is √(8/T), at least 1.",
)
def doge(
    layer: Layer,
    *,
    prepared: Prepared,
    stage: Annotated[
        str,
        Choice(
            "Coefficients",
            "task_arithmetic: η over each task vector's norm. adamerging: learned from unlabeled images "
            "from there on, with a correction for each task (DOGE-AM).",
            ("task_arithmetic", "adamerging"),
        ),
    ] = "task_arithmetic",
    eta: Annotated[
        float | None,
        Number(
            "η",
            "Length of each scaled task vector in a matrix. The authors' 0.07 fits CLIP's lengths.",
            0,
            100,
            0.01,
            auto=f"{RELATIVE_ETA:g} times the mean length of the matrix's task vectors",
            soft_high=1,
        ),
    ] = None,
    density: Annotated[float, Number("Density", "Share of each task vector's entries that is kept.", 0, 1, 0.05)] = 0.3,
    divisor: Annotated[
        float, Number("Subspace divisor", "The shared subspace has min(m, n) / divisor directions.", 1, 1000, 1, soft_high=16)
    ] = 6.0,
    iterations: Annotated[int, ITERATIONS] = 400,
    learning_rate: Annotated[
        float | None,
        Number(
            "Learning rate",
            "About how far Adam moves an entry in one step. The authors' 0.0001 fits CLIP's small deltas.",
            0,
            1,
            1e-4,
            auto=f"{RELATIVE_STEP:g} times the root mean square of the matrix's deltas, for adapters {ADAPTER_STEP:g} times",
            soft_high=1e-2,
            soft_low=1e-6,
            log=True,
        ),
    ] = None,
    adaptation_steps: Annotated[int, STEPS] = 100,
    adaptation_rate: Annotated[float, RATE] = 5e-3,
    batch: Annotated[int, BATCH] = 16,
    images: Annotated[str, SPLIT] = "val",
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """Σ_t λ_t (D_t + Δ) ∘ m_t of a matrix; every other parameter stays the base's, as in the authors' code.

    DOGE-AM (stage adamerging) has one Δ_t for each task beside ⌊r / T⌋ shared directions, and then learns the λ.

    Gradients are projected off the shared subspace before Adam, which then rescales entries: PΔ = 0 holds only about.
    """
    D = layer.dense_deltas()
    if not layer.is_matrix:
        return torch.zeros_like(D[0])
    if prepared.learned is not None:
        return prepared.learned[layer.name].to(layer.dtype)
    lambdas = _scales(D, eta)
    unit, step = _unit_and_step(layer, D, learning_rate)
    delta = unit * correction(D / unit, lambdas, shared_directions(layer, divisor), iterations, step)
    return (per_task(lambdas, D) * (D + delta) * kept_entries(D, prepared.thresholds)).sum(dim=0)


def shared_directions(layer: Layer, divisor: float) -> Tensor:
    """Orthonormal columns (m, k), k = ⌊min(m, n) / divisor⌋: leading left singular vectors of all tasks' own leading ones."""
    k, r = int(min(layer.shape) / divisor), layer.default_rank()
    if not k or not r:
        return torch.zeros(layer.shape[0], 0, dtype=layer.dtype)
    joined = torch.cat([svd.present().U for svd in layer.factors(r)], dim=1)
    U, s, _ = torch.linalg.svd(joined, full_matrices=False)
    return U[:, : min(k, int((s > 1e-6).sum()))]


def residuals(D: Tensor, lambdas: Tensor, delta: Tensor) -> Tensor:
    """⟨τ_j, τ_j − Σ_t λ_t (τ_t + Δ)⟩ of every row, (T, m)."""
    merged = (per_task(lambdas, D) * D).sum(dim=0) + lambdas.sum() * delta
    return (D * (D - merged)).sum(dim=2)


def correction(D: Tensor, lambdas: Tensor, shared: Tensor, iterations: int, learning_rate: float) -> Tensor:
    """Δ (m, n) of all tasks after Adam on the sum of squared residuals, gradients orthogonal to the shared directions."""

    def outside(delta: Tensor) -> Tensor | None:
        gradient = -2 * lambdas.sum() * (residuals(D, lambdas, delta)[:, :, None] * D).sum(dim=0)
        return _beside(gradient, shared)

    return descended(torch.zeros_like(D[0]), outside, iterations, learning_rate)


def corrections(D: Tensor, lambdas: Tensor, shared: Tensor, iterations: int, learning_rate: float) -> Tensor:
    """The same with a Δ_t for each task, (T, m, n): Σ λ_t (τ_t + Δ_t) answers every task's own rows."""

    def outside(deltas: Tensor) -> Tensor | None:
        mean = (per_task(lambdas, D) * deltas).sum(dim=0) / lambdas.sum().clamp_min(1e-30)
        direction = (residuals(D, lambdas, mean)[:, :, None] * D).sum(dim=0)
        return _beside(-2 * per_task(lambdas, D) * direction, shared)

    return descended(torch.zeros_like(D), outside, iterations, learning_rate)


def _beside(gradient: Tensor, shared: Tensor) -> Tensor | None:
    """The part of a gradient (..., m, n) orthogonal to the shared directions (m, k); None where only rounding is left."""
    rest = gradient - shared @ (shared.T @ gradient)
    # Where the shared directions fill the space, Adam would enlarge the rounding.
    return rest if rest.norm() > _ROUNDING * gradient.norm() else None
