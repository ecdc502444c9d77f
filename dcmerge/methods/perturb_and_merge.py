"""Perturb-and-Merge: learn the tasks one after another, and after each go only as far as the tasks before it allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.evaluation import Split
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.declare import Choice, Flag, Number
from dcmerge.methods.opcm import arrival
from dcmerge.methods.registry import merging_method
from dcmerge.vectors.layers import Layer

#: Share of a task's progress that its training takes; the rest is its Fisher information.
_TRAINING = 0.85


@dataclass
class Curvature:
    """½ Σ_i (θ − θ_i*)ᵀ F_i (θ − θ_i*), what the tasks so far lose, F_i diagonal.

    Kept as Σ F_i and Σ F_i ∘ θ_i*, (d,) each, so that memory does not grow with the tasks.
    """

    total: Tensor
    pull: Tensor
    tasks: int = 0

    def add(self, optimum: Tensor, fisher: Tensor) -> None:
        """One more task with its optimum θ_i* and diagonal F_i, (d,) both."""
        self.total, self.pull, self.tasks = self.total + fisher, self.pull + fisher * optimum, self.tasks + 1

    def gradient(self, theta: Tensor) -> Tensor:
        """Σ_i F_i ∘ (θ − θ_i*), (d,)."""
        return self.total * theta - self.pull

    def coefficient(self, theta: Tensor, delta: Tensor) -> float:
        """α* = − Σ_i (θ − θ_i*)ᵀ F_i Δ / Σ_i Δᵀ F_i Δ, the lowest point on the line θ + α Δ.

        Where no task sees a curvature along Δ every α is as good: 1/t then, the running average.
        """
        bend = (self.total.double() * delta.double().square()).sum()
        slope = (self.gradient(theta).double() * delta.double()).sum()
        return float(-slope / bend) if bend > 0 else 1 / self.tasks


@dataclass(frozen=True, eq=False)
class KeyValueRows:
    """The trained parameters: rows d:3d of open_clip's fused attention projections (3d, d), all in one vector.

    A vector θ holds what is added to the base's rows.
    """

    base: Mapping[str, Tensor]
    names: tuple[str, ...]

    @property
    def widths(self) -> list[int]:
        return [self.base[name].shape[1] for name in self.names]

    @property
    def size(self) -> int:
        return sum(2 * d * d for d in self.widths)

    def deltas(self, theta: Tensor) -> dict[str, Tensor]:
        """θ as deltas (3d, d) of the projections, zero in the query's rows; differentiable."""
        parts = theta.split([2 * d * d for d in self.widths])
        return {
            name: torch.nn.functional.pad(part.view(2 * d, d), (0, 0, d, 0))
            for name, d, part in zip(self.names, self.widths, parts, strict=True)
        }

    def weights(self, theta: Tensor) -> dict[str, Tensor]:
        """The base with θ added."""
        return {**self.base, **{name: self.base[name] + delta for name, delta in self.deltas(theta).items()}}


def perturbations(epsilon: float, probability: float) -> tuple[tuple[float, float], ...]:
    """(probability, factor c) of the points θ̂ + cΔ at which a step takes its loss: θ, θ + εΔ and θ − εΔ.

    The expectation is L(θ) + μ ΔᵀHΔ with μ = p ε², up to the fourth order in ε.
    """
    return (1 - 2 * probability, 1.0), (probability, 1 + epsilon), (probability, 1 - epsilon)


def drawn_factors(epsilon: float, probability: float, seed: int) -> Iterator[float]:
    """Without end: the factor of every step."""
    draw = torch.Generator().manual_seed(seed)
    shares, factors = zip(*perturbations(epsilon, probability), strict=True)
    while True:
        yield factors[int(torch.multinomial(torch.tensor(shares).clamp_min(0), 1, generator=draw))]


def fine_tuned(
    start: Tensor,
    widths: Sequence[int],
    loss: Callable[[Tensor], Tensor],
    factors: Iterator[float],
    *,
    steps: int,
    learning_rate: float,
    rank: int,
    seed: int,
) -> Tensor:
    """Δ = B A after training (LoRA of every key and value matrix, B = 0 at first), (d,): each step lowers loss(start + cΔ).

    ``widths`` lists the d of the projections; ``factors`` gives c.
    """
    draw = torch.Generator().manual_seed(seed)
    # The usual start of LoRA: uniform, of variance 1/(3 d).
    A = [((2 * torch.rand(2, rank, d, generator=draw) - 1) / d**0.5).requires_grad_() for d in widths]
    B = [torch.zeros(2, d, rank, requires_grad=True) for d in widths]
    adam = torch.optim.AdamW([*A, *B], lr=learning_rate)

    def update() -> Tensor:
        return torch.cat([(b @ a).flatten() for a, b in zip(A, B, strict=True)])

    for _ in range(steps):
        adam.zero_grad()
        loss(start + next(factors) * update()).backward()
        adam.step()
    return update().detach()


def _losses(calibration: Calibration, rows: KeyValueRows, task: str, theta: Tensor, part: Split) -> Tensor:
    """−log p(y | x) of every image under the task's head, (N,)."""
    z = torch.nn.functional.normalize(calibration.encoder.forward(rows.weights(theta), part.images), dim=-1)
    logits = calibration.bench.logit_scale.value * z @ calibration.bench.tasks[task].head.T
    return torch.nn.functional.cross_entropy(logits, part.labels, reduction="none")


def _empirical_fisher(calibration: Calibration, rows: KeyValueRows, task: str, theta: Tensor, count: int, seed: int) -> Tensor:
    """Mean over images of (∂ log p(y|x) / ∂θ)² with the images' own labels, (d,)."""
    theta, total = theta.clone().requires_grad_(), torch.zeros_like(theta)
    part = next(calibration.labelled_batches(task, min(count, len(calibration.labelled(task))), seed))
    for place in range(len(part)):
        image = part.take(torch.tensor([place]))
        (gradient,) = torch.autograd.grad(_losses(calibration, rows, task, theta, image).sum(), theta)
        total += gradient.square() / len(part)
    return total


@dataclass(frozen=True, eq=False)
class Learned:
    """θ̂_T as deltas of the trained projections; of every task in turn the trace of its Fisher information and its α."""

    deltas: Mapping[str, Tensor]
    traces: Mapping[str, float]
    coefficients: Mapping[str, float]


def _sequence(
    layers: Sequence[Layer],
    *,
    calibration: Calibration,
    order: str,
    seed: int,
    exemplars: int,
    batch: int,
    epsilon: float,
    probability: float,
    normalise: bool,
    **training: Any,
) -> Learned:
    """Every task in turn: trained, its curvature added, and gone along as far as all tasks so far allow."""
    tasks, bench = arrival(layers[0].tasks, seed if order == "random" else None), calibration.bench
    rows = KeyValueRows(bench.base_weights(), _projections(layers))
    theta, curvature = torch.zeros(rows.size), Curvature(torch.zeros(rows.size), torch.zeros(rows.size))
    traces, coefficients = {}, {}
    for done, task in enumerate(tasks):
        images, begun = calibration.labelled_batches(task, batch, seed + done), len(calibration.curve)

        def loss(point: Tensor, task=task, images=images, begun=begun, done=done) -> Tensor:
            share = (len(calibration.curve) - begun) / training["steps"]
            calibration.tell((done + _TRAINING * share) / len(tasks), f"training on {task}")
            value = _losses(calibration, rows, task, point, next(images)).mean()
            calibration.curve.append(value.item())
            return value

        delta = fine_tuned(
            theta, rows.widths, loss, drawn_factors(epsilon, probability, seed + done), seed=seed + done, **training
        )
        calibration.tell((done + _TRAINING) / len(tasks), f"Fisher information of {task}")
        optimum = theta + delta
        fisher = _empirical_fisher(calibration, rows, task, optimum, exemplars, seed)
        traces[task] = fisher.double().sum().item()
        curvature.add(optimum, fisher / max(traces[task], 1e-30) if normalise else fisher)
        coefficients[task] = curvature.coefficient(theta, delta)
        theta = theta + coefficients[task] * delta
    return Learned(rows.deltas(theta), traces, coefficients)


def _told(layers: Sequence[Layer], *, prepared: Learned, **_: object) -> tuple[str, ...]:
    """The traces and the steps: a task whose trace outweighs the others' decides alone."""
    steps = ", ".join(f"{task} {value:.2f} ({prepared.traces[task]:.3g})" for task, value in prepared.coefficients.items())
    return (f"goes these shares α of each task's way (in brackets the trace of its Fisher information): {steps}",)


def _projections(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Names of the fused attention projections of the image tower; raises InputError where there is none."""
    names = tuple(
        layer.name for layer in layers if layer.name.startswith("visual.") and layer.name.endswith("attn.in_proj_weight")
    )
    if not names:
        raise InputError("perturb_and_merge trains keys and values: expected parameters visual.….attn.in_proj_weight, got none")
    return names


_COUNT = {"low": 1, "high": 1000000, "step": 1, "integer": True}


@merging_method(
    "perturb_and_merge",
    title="Perturb-and-Merge",
    idea="Train on the tasks one after another with LoRA, and after each go only as far along its update as is best for all "
    "tasks so far, a step in closed form. Losses are taken at perturbed updates, which keeps the curvature along them low. It "
    "trains from the base on labelled validation images of the tasks; the experts' weights are not used.",
    formula=r"\hat\theta_t=\hat\theta_{t-1}+\alpha_t\Delta_t,"
    r"\quad\alpha_t=-\frac{\sum_{i\le t}(\hat\theta_{t-1}-\theta_i^*)^\top F_i\Delta_t}{\sum_{i\le t}\Delta_t^\top F_i\Delta_t}",
    source="Qiu et al. 2025, arXiv 2505.22389",
    needs=("weights", "base", "images", "labels", "training"),
    everywhere=True,
    prepare=_sequence,
    fixed_scale="the coefficients are in closed form",
    differs="Each task's Fisher information is divided by its trace, 20 steps on validation images in place of ten epochs of "
    "training images, and the heads are frozen.",
    quick={"steps": 5, "exemplars": 32},
    order_matters=True,
    notes=_told,
)
def perturb_and_merge(
    layer: Layer,
    *,
    prepared: Learned,
    steps: Annotated[
        int,
        Number(
            "Steps a task",
            "Training steps for each task. The paper takes 10 epochs of its training data.",
            soft_high=500,
            **_COUNT,
        ),
    ] = 20,
    batch: Annotated[
        int, Number("Batch", "Labelled validation images a step; the paper takes 256.", soft_high=256, **_COUNT)
    ] = 32,
    learning_rate: Annotated[
        float,
        Number("Learning rate", "Step size of AdamW on the LoRA factors.", 0, 1, 1e-4, soft_high=1e-2, soft_low=1e-5, log=True),
    ] = 1e-3,
    rank: Annotated[
        int, Number("Rank", "The rank of the LoRA update of every key and value matrix.", 1, 4096, 1, integer=True, soft_high=64)
    ] = 10,
    epsilon: Annotated[
        float,
        Number("Perturbation ε", "Losses are taken at 1, 1 + ε and 1 − ε times the update; 0 is plain training.", 0, 1, 0.05),
    ] = 0.5,
    probability: Annotated[
        float, Number("Probability", "How often each of the two perturbations is used. The other steps are plain.", 0, 0.5, 0.01)
    ] = 1 / 3,
    exemplars: Annotated[
        int,
        Number(
            "Fisher images",
            "Labelled validation images a task that the Fisher information is measured on.",
            soft_high=300,
            **_COUNT,
        ),
    ] = 256,
    normalise: Annotated[
        bool,
        Flag(
            "Equal traces",
            "Divide every task's Fisher information by its trace. Where traces differ by thousands, the paper's sum (off) is "
            "that of one task: the others are forgotten or skipped.",
        ),
    ] = True,
    order: Annotated[
        str, Choice("Order", "given: the tasks as the set lists them. random: drawn with the seed.", ("given", "random"))
    ] = "given",
    seed: Annotated[
        int,
        Number(
            "Seed",
            "Decides the images, the perturbations, the start of LoRA and a random order.",
            0,
            2**31 - 1,
            1,
            integer=True,
            soft_high=100,
        ),
    ] = 0,
) -> Tensor:
    """θ̂_T − θ_0, zero but for the keys' and values' rows.

    One α for the whole model, as in the paper's main results. The first task's is 1, and what the base knows of a task counts for
    nothing before its turn: long training on the first tasks costs the later ones.

    The trace of a task's Fisher information, and with it the task's weight, grows with how sure of a wrong answer the model is:
    from 0.5 to 7,700 on one set of eight tasks, so that one of them decided alone. By default every trace is made 1.

    Two more things differ from the paper: the heads are the tasks' frozen zero-shot ones, where the paper trains one with a
    learning rate of 1e-2, and the images are those of the validation split with their labels, since a model set has no training
    images. Test images are never looked at.
    """
    value = prepared.deltas.get(layer.name)
    return torch.zeros(layer.shape, dtype=layer.dtype) if value is None else value.to(layer.dtype)
