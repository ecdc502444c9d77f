"""Fisher merging: the mean of the experts' weights, each weighted by how much its predictions depend on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.declare import Flag, Number
from dcmerge.methods.from_images import EXEMPLARS, SEED, SPLIT
from dcmerge.methods.registry import merging_method
from dcmerge.vectors.layers import Layer

Fisher = Mapping[str, Mapping[str, Tensor]]


def diagonal_fishers(
    layers: Sequence[Layer], *, calibration: Calibration, exemplars: int, draws: int, images: str, seed: int, **_: object
) -> Fisher:
    """The diagonal Fisher information of every expert on its own task, by task and parameter; remembered by the bench."""
    found = {}
    for task in layers[0].tasks:
        key = ("fisher", task, exemplars, draws, images, seed)
        found[task] = calibration.bench.memo.get(
            key, lambda task=task: diagonal_fisher(calibration, task, exemplars, draws, images, seed)
        )
    return found


def diagonal_fisher(calibration: Calibration, task: str, exemplars: int, draws: int, split: str, seed: int) -> dict[str, Tensor]:
    """E_x E_{y~p(y|x)} (∂ log p(y|x) / ∂θ)², float32, by parameter of the encoder.

    With ``draws`` > 0 so many labels are drawn from the expert's own prediction for each image, with 0 all classes count with
    their probability. Labels of the images are never used.
    """
    bench = calibration.bench
    weights = bench.expert_weights(task)
    names = [f"visual.{name}" for name, _ in calibration.encoder.visual.named_parameters()]  # no running statistics
    weights |= {name: weights[name].detach().requires_grad_() for name in names}
    total = {name: torch.zeros_like(weights[name]) for name in names}
    images, draw = calibration.images(task, exemplars, split, seed), torch.Generator().manual_seed(seed)
    place = bench.vectors.tasks.index(task)
    for done, image in enumerate(images):
        calibration.tell((place + done / len(images)) / len(bench.vectors.tasks), f"Fisher information of {task}")
        z = torch.nn.functional.normalize(calibration.encoder.forward(weights, image[None]), dim=-1)
        logs = (bench.logit_scale.value * z @ bench.tasks[task].head.T).log_softmax(dim=-1)[0]
        for share, label in _labels(logs.detach().exp(), draws, draw):
            gradients = torch.autograd.grad(logs[label], [weights[n] for n in names], retain_graph=True, allow_unused=True)
            for name, gradient in zip(names, gradients, strict=True):
                if gradient is not None:
                    total[name] += share / len(images) * gradient.square()
    return total


def _labels(p: Tensor, draws: int, draw: torch.Generator) -> Iterator[tuple[float, int]]:
    """Labels and their weights: drawn from p, or every class with its probability."""
    if draws:
        yield from ((1 / draws, int(y)) for y in torch.multinomial(p, draws, replacement=True, generator=draw))
    else:
        yield from ((float(share), y) for y, share in enumerate(p))


@merging_method(
    "fisher",
    title="Fisher merging",
    idea="The mean of the experts' weights, in which each expert counts for an entry as much as its predictions on its own task "
    "depend on that entry.",
    formula=r"\theta=\frac{\sum_t F_t\circ\theta_t}{\sum_t F_t},"
    r"\quad F_t=\mathbb E_x\,\mathbb E_{y\sim p_t(y|x)}\big(\partial_\theta\log p_t(y|x)\big)^2",
    source="Matena and Raffel 2022, arXiv 2111.09832",
    needs=("weights", "images"),
    everywhere=True,
    prepare=diagonal_fishers,
    fixed_scale="it is a mean of the weights themselves",
    quick={"exemplars": 32},
)
def fisher(
    layer: Layer,
    *,
    prepared: Fisher,
    exemplars: Annotated[int, EXEMPLARS] = 256,
    draws: Annotated[
        int,
        Number(
            "Labels an image",
            "Drawn from the expert's own prediction; 0 takes every class with its probability, which "
            "is exact and as many times slower as there are classes.",
            0,
            1000,
            1,
            integer=True,
            soft_high=10,
        ),
    ] = 1,
    floor: Annotated[
        float,
        Number(
            "Floor",
            "Added to every Fisher value, so that entries with none are averaged.",
            0,
            1,
            1e-6,
            soft_high=1e-3,
            soft_low=1e-9,
            log=True,
        ),
    ] = 1e-6,
    normalise: Annotated[
        bool,
        Flag(
            "Equal norms",
            "Give every expert's Fisher information one norm over the whole model, so that no task outweighs the others.",
        ),
    ] = True,
    images: Annotated[str, SPLIT] = "val",
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """Σ F_t ∘ D_t / Σ F_t, which is the weighted mean of the weights minus the base."""
    D = layer.dense_deltas()
    F = (
        torch.stack(
            [
                prepared[task].get(layer.name, torch.zeros(layer.shape)) / (_norm(prepared[task]) if normalise else 1)
                for task in layer.tasks
            ]
        ).to(D.dtype)
        + floor
    )
    return (F * D).sum(dim=0) / F.sum(dim=0).clamp_min(1e-30)


def _norm(fisher: Mapping[str, Tensor]) -> float:
    return max(1e-30, sum(float(value.double().square().sum()) for value in fisher.values()) ** 0.5)
