"""Looks in bfloat16 beside float32: how fast here, and how often they differ, image by image; and batches of several sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import open_clip
import torch
from torch import Tensor

from benchmarks.measuring import Row, Timer
from dcmerge.evaluation import ImageEncoder
from dcmerge.evaluation.precision import chosen, measured_speed
from dcmerge.merging.merge import merge
from dcmerge.zoo import open_zoo

#: Merges whose looks are compared, and images a task.
MERGES, LIMIT = ("average", "task_arithmetic", "ties", "dc_merge"), 200
#: Of the tower with random weights: images, and classes of a task.
IMAGES, CLASSES = 64, 100
BATCHES = (1, 4, 8, 16, 32, 64)


def looks(runs: int) -> Iterator[Row]:
    """What decides on this machine, the demo in both, a ViT-B/32 with random weights in both, and its batches."""
    speed = measured_speed()
    dtype = str(chosen(speed).dtype).removeprefix("torch.")
    remark = f"bfloat16 is {speed:.2f} times as fast as float32 in products: looks run in {dtype}"
    yield Row("l", "what a server measures at its first look", remark=remark)
    yield from _demo()
    encoder = ImageEncoder(open_clip.get_model_config("ViT-B-32"))
    torch.manual_seed(0)
    weights = {f"visual.{name}": value for name, value in encoder.visual.state_dict().items()}
    images = torch.randint(0, 256, (IMAGES, 3, 224, 224), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    yield _random_tower(encoder, weights, images)
    timer = Timer(runs)
    timer.alternate(
        **{
            str(size): lambda size=size: replace(encoder, batch_size=size).encode(weights, images[: max(BATCHES)])
            for size in BATCHES
        }
    )
    for size in BATCHES:
        seconds = timer.median(str(size))
        yield Row(
            "l", f"ViT-B/32, {size} images at a time", ours=seconds, runs=runs, remark=f"{IMAGES / seconds:.1f} images a second"
        )


def _demo() -> Iterator[Row]:
    zoo = open_zoo("demo")
    for slug in MERGES:
        merged = merge(zoo.vectors, slug, bench=zoo.bench)
        weights = merged.model(zoo.bench, 0.5)
        exact, near, seconds = {}, {}, []
        for found, dtype in ((exact, torch.float32), (near, torch.bfloat16)):
            began = Timer.clock()
            found |= zoo.bench.features(weights, split="val", limit=LIMIT, dtype=dtype)
            seconds.append(Timer.clock() - began)
        heads = {task: own.head for task, own in zoo.bench.tasks.items()}
        labels = {task: zoo.bench.split(task, "val", LIMIT).labels for task in heads}
        said = [(exact[t] @ heads[t].T).argmax(1) for t in heads], [(near[t] @ heads[t].T).argmax(1) for t in heads]
        right = [torch.cat([own == labels[t] for own, t in zip(each, heads, strict=True)]) for each in said]
        other = int((torch.cat(said[0]) != torch.cat(said[1])).sum())
        gain = 100 * (right[1].double().mean() - right[0].double().mean()).item()
        yield Row(
            "l",
            f"demo, {slug} at α = 0.5, {LIMIT} validation images a task: float32 against bfloat16",
            *seconds,
            remark=f"{other} of {len(right[0])} answers differ, {int((right[0] != right[1]).sum())} between right and wrong; "
            f"mean accuracy {gain:+.2f} points",
        )


def _random_tower(encoder: ImageEncoder, weights: dict[str, Tensor], images: Tensor) -> Row:
    head = torch.nn.functional.normalize(torch.randn(CLASSES, 512, generator=torch.Generator().manual_seed(1)), dim=-1)
    found, seconds = [], []
    for dtype in (torch.float32, torch.bfloat16):
        began = Timer.clock()
        found.append(encoder.encode(weights, images, dtype=dtype))
        seconds.append(Timer.clock() - began)
    cosines = (found[0] * found[1]).sum(dim=1)
    other = int(((found[0] @ head.T).argmax(1) != (found[1] @ head.T).argmax(1)).sum())
    return Row(
        "l",
        f"ViT-B/32 with random weights, {IMAGES} images of noise, {CLASSES} random classes: float32 against bfloat16",
        *seconds,
        remark=f"{other} of {IMAGES} answers differ; cosine of the embeddings at least {cosines.min():.5f}",
    )
