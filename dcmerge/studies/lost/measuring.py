"""Asks base, expert and merge about the same images."""

from __future__ import annotations

from collections.abc import Callable

from dcmerge.errors import Cancelled
from dcmerge.evaluation import Bench, Model
from dcmerge.evaluation.models import Weights
from dcmerge.studies.lost.found import Answers, Lost, TaskAnswers


def lost_images(
    bench: Bench,
    model: Weights | Model,
    *,
    split: str = "val",
    limit: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Lost:
    """Every task's images through the base, the task's own expert and the merged ``model``. Raises Cancelled."""
    steps = 2 + len(bench.tasks)

    def tell(done: float, text: str) -> None:
        if cancelled and cancelled():
            raise Cancelled
        if progress:
            progress(done / steps, text)

    tell(0, "the base")
    base = bench.features(bench.base_weights(), split=split, limit=limit, cancelled=cancelled)
    tell(1, "the merged model")
    merged = bench.features(model, split=split, limit=limit, cancelled=cancelled)
    found = {}
    for done, (name, task) in enumerate(bench.tasks.items()):
        tell(2 + done, f"the expert of {name}")
        part = bench.split(name, split, limit)
        expert = bench.encoder.encode(bench.expert_weights(name), part.images, cancelled=cancelled)
        answers = (
            Answers.of(features, task.head, part.labels, bench.logit_scale.value)
            for features in (base[name], expert, merged[name])
        )
        found[name] = TaskAnswers(name, task.classes, part.labels, *answers)
    return Lost(found, split, limit)
