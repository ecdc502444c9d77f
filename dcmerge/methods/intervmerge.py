"""IntervMerge: small interventions inside a merged model, for every task, on its way to the embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.evaluation import TaskModule
from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.adaptation import BATCH, RATE, STEPS, adapt
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.from_images import SEED, SPLIT
from dcmerge.methods.registry import merging_method
from dcmerge.methods.repaired import ORIGIN, SCALE, Repaired, distance_to_teachers, modules_of, notes_on_scale, scaled_merge
from dcmerge.vectors.layers import Layer

#: The output of a block's attention, before it is added to the stream: open_clip calls it so.
_PLACE = "transformer.resblocks.{}.ls_1"


@dataclass(frozen=True, eq=False)
class Interventions:
    """The parameters of all tasks in one block. ``change(h, t)`` gives what is added to h (..., N, d), t a task or all."""

    parts: tuple[Tensor, ...]
    added: Callable[..., Tensor]

    def of(self, task: int | slice) -> tuple[Tensor, ...]:
        return tuple(part[task] for part in self.parts)


def noreft(h: Tensor, W1: Tensor, W2: Tensor, c1: Tensor, c2: Tensor) -> Tensor:
    """What Φ(h) = h + W2ᵀ(W1 h + c1 − W2 h − c2) adds; h (..., N, d), W (..., r, d), c (..., r)."""
    inside = h @ (W1 - W2).transpose(-1, -2) + (c1 - c2)[..., None, :]
    return inside @ W2


def shift(h: Tensor, R: Tensor, c: Tensor, start: int) -> Tensor:
    """What R c adds to channels start .. start + e of h, R (..., e, r) with orthonormal columns by QR; the same for every h."""
    moved = torch.linalg.qr(R).Q @ c[..., None]
    return torch.nn.functional.pad(moved.transpose(-1, -2), (start, h.shape[-1] - start - R.shape[-2])).expand_as(h)


def _created(
    variant: str, blocks: int, tasks: int, d: int, rank: int, channels: int, draw: torch.Generator
) -> list[Interventions]:
    """Interventions of every block, drawn as linear layers are by default; those of one block side by side for all tasks."""

    def uniform(*shape: int) -> Tensor:
        bound = d**-0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=draw)

    found = []
    for block in range(blocks):
        if variant == "noreft":
            W = (uniform(tasks, rank, d), uniform(tasks, rank, d))
            found.append(Interventions((*W, uniform(tasks, rank), uniform(tasks, rank)), noreft))
        else:
            e = min(channels, d)
            R = torch.randn(tasks, e, rank, generator=draw)
            start = block * e % (d - e + 1)
            found.append(Interventions((R, torch.zeros(tasks, rank)), partial(shift, start=start)))
    return found


def _on_class_token(output: Tensor, added: Callable[[Tensor], Tensor]) -> Tensor:
    """The output (N, tokens, d) with a change of its first token alone."""
    first = output[:, 0]
    return torch.cat([(first + added(first))[:, None], output[:, 1:]], dim=1)


def _all_tasks(block: Interventions, tasks: int, output: Tensor) -> Tensor:
    """The intervention on a batch in which every task has the same number of images, in task order."""
    return _on_class_token(output, lambda h: block.added(h.unflatten(0, (tasks, -1)), *block.of(slice(None))).flatten(0, 1))


def _one_task(block: Interventions, task: int, output: Tensor) -> Tensor:
    return _on_class_token(output, lambda h: block.added(h, *block.of(task)))


def _trained(
    layers: Sequence[Layer],
    *,
    calibration: Calibration,
    origin: str,
    merged_scale: float | None,
    variant: str,
    rank: int,
    channels: int,
    iterations: int,
    learning_rate: float,
    batch: int,
    images: str,
    seed: int,
) -> Repaired:
    bench, tasks, encoder = calibration.bench, layers[0].tasks, calibration.encoder
    count = encoder.layers  # first: it raises for encoders without blocks
    deltas = scaled_merge(layers, calibration, origin, merged_scale)
    weights = bench.merged_weights(deltas, 1.0)
    teachers = {task: calibration.embeddings_of_expert(task, images) for task in tasks}
    width = encoder.shapes["visual.class_embedding"][0]
    blocks = _created(variant, count, len(tasks), width, rank, channels, torch.Generator().manual_seed(seed))
    edits = {_PLACE.format(b): partial(_all_tasks, block, len(tasks)) for b, block in enumerate(blocks)}

    def loss(picks: dict[str, Tensor]) -> Tensor:
        pictures = torch.cat([bench.split(task, images, None).images[pick] for task, pick in picks.items()])
        z = dict(zip(picks, encoder.forward(weights, pictures, edits).chunk(len(picks)), strict=True))
        return distance_to_teachers(lambda task, pick: z[task], teachers, picks)

    adapt(
        calibration,
        [part for block in blocks for part in block.parts],
        loss,
        calibration.picks(batch, images, seed),
        iterations=iterations,
        learning_rate=learning_rate,
        what="learning interventions",
    )
    size = sum(part[0].numel() for block in blocks for part in block.parts)
    modules = {
        task: TaskModule(edits={_PLACE.format(b): partial(_one_task, block, t) for b, block in enumerate(blocks)}, size=size)
        for t, task in enumerate(tasks)
    }
    return Repaired(deltas, modules)


@merging_method(
    "intervmerge",
    title="IntervMerge",
    idea="Keep the merged model and learn for each task a tiny intervention in every block, on the class token, that brings its "
    "embeddings to those of the task's own expert. The task of an image must be known.",
    formula=r"\Phi_t(h)=h+W_2^\top(W_1h+c_1-W_2h-c_2),\quad\min\mathbb E_{x\in t}\|z_t-z_t^{expert}\|_1",
    source="Osial et al. 2024, arXiv 2412.17023",
    needs=("weights", "base", "images", "labels", "training", "task"),
    returns="one model with an intervention in every block for each task",
    everywhere=True,
    prepare=_trained,
    modules=modules_of,
    fixed_scale="the α of the merge that is repaired is applied before",
    differs="120 steps of one batch at a rate of 0.01 on validation images; the authors take 500 of two batches at 0.001. A "
    "mini intervention starts with no shift, theirs with a random one.",
    notes=notes_on_scale,
    quick={"iterations": 20},
    order_matters=True,
)
def intervmerge(
    layer: Layer,
    *,
    prepared: Repaired,
    origin: Annotated[str, ORIGIN] = "task_arithmetic",
    merged_scale: Annotated[float | None, SCALE] = None,
    variant: Annotated[
        str,
        Choice(
            "Intervention",
            "noreft: a low-rank change of the whole token. mini: a learned shift of a few channels, different ones in every "
            "block.",
            ("noreft", "mini"),
        ),
    ] = "noreft",
    rank: Annotated[int, Number("Rank", "Of every intervention.", 1, 1024, 1, integer=True, soft_high=16)] = 1,
    channels: Annotated[
        int,
        Number(
            "Channels", "How many channels a mini intervention shifts in each block.", 1, 100000, 1, integer=True, soft_high=128
        ),
    ] = 64,
    iterations: Annotated[int, STEPS] = 120,
    learning_rate: Annotated[float, RATE] = 1e-2,
    batch: Annotated[int, BATCH] = 16,
    images: Annotated[str, SPLIT] = "val",
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """α times the merge that is repaired; the interventions are each task's part of the result.

    They start at random, as the authors' do, so that the start is not the merge itself. The authors take 500 iterations of
    two batches at a rate of 0.001.
    """
    return prepared.deltas[layer.name].to(layer.dtype)
