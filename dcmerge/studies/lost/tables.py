"""Lost images as rows: for a table, a CSV file, or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcmerge.evaluation import Bench, Split
from dcmerge.runs.tables import as_csv as csv_text
from dcmerge.studies.lost.found import FATES, LOST, MODELS, NEITHER, WON, Lost, TaskAnswers
from dcmerge.studies.lost.runs import RunsApart


def task_rows(found: Lost) -> list[dict[str, Any]]:
    """One row a task: accuracies in percent, how many images were lost and won, and the mistake that is new most often."""
    return [_task_row(one) for one in found.tasks.values()]


def _task_row(one: TaskAnswers) -> dict[str, Any]:
    shares = {model: round(100 * one.right(model).double().mean().item(), 2) for model in MODELS}
    fates = {fate: len(one.places(fate)) for fate in (LOST, WON, NEITHER)}
    new = [f"{true} taken for {said} ({count})" for true, said, count in one.confused(1)]
    return {"task": one.task, "images": len(one.labels), **shares, **fates, "new mistake": new[0] if new else ""}


def image_rows(found: Lost, bench: Bench) -> list[dict[str, Any]]:
    """One row an image, in the order of the split: its file where it is one, what it shows, what each model says."""
    return [row for one in found.tasks.values() for row in _image_rows(one, bench.split(one.task, found.split, found.limit))]


def _image_rows(one: TaskAnswers, part: Split) -> list[dict[str, Any]]:
    said = {model: (one.answers(model).predicted.tolist(), one.answers(model).margin.tolist()) for model in MODELS}
    return [
        {"task": one.task, "image": place, "file": str(part.files[place]) if part.files else "", "true": one.classes[label]}
        | {"fate": one.fate(place)}
        | {model: one.classes[predicted[place]] for model, (predicted, _) in said.items()}
        | {f"{model} margin": round(margin[place], 4) for model, (_, margin) in said.items()}
        for place, label in enumerate(one.labels.tolist())
    ]


def as_csv(found: Lost, bench: Bench) -> str:
    """``image_rows`` as CSV."""
    return csv_text(image_rows(found, bench))


def to_data(found: Lost) -> dict[str, Any]:
    """Tasks, and by task the confusion of each model, as plain data."""
    confusions = {
        name: {"classes": list(one.classes), **{model: one.confusion(model).tolist() for model in MODELS}}
        for name, one in found.tasks.items()
    }
    return {
        "split": found.split,
        "limit": found.limit,
        "tasks": task_rows(found),
        "fates": FATES,
        "places": {name: {fate: one.places(fate) for fate in (LOST, WON, NEITHER)} for name, one in found.tasks.items()},
        "confusion": confusions,
    }


def apart_rows(found: RunsApart) -> list[dict[str, Any]]:
    """One row a task: how many images one run alone gets right, both, and neither."""
    return [
        {
            "task": task,
            "images": len(one.first),
            "only first": len(one.only_first),
            "only second": len(one.only_second),
            "both": one.both,
            "neither": one.neither,
        }
        for task, one in found.tasks.items()
    ]


def apart_image_rows(
    found: RunsApart, images: Mapping[str, Split] | None = None, bench: Bench | None = None
) -> list[dict[str, Any]]:
    """One row an image on which the runs differ; with its file and true class where ``images`` and ``bench`` are at hand."""
    return [
        {"task": task, "image": place, "right": which, **_about(task, place, images, bench)}
        for task, one in found.tasks.items()
        for which, places in (("first", one.only_first), ("second", one.only_second))
        for place in places
    ]


def _about(task: str, place: int, images: Mapping[str, Split] | None, bench: Bench | None) -> dict[str, Any]:
    if images is None or bench is None:
        return {}
    part = images[task]
    shown = bench.tasks[task].classes[int(part.labels[place])]
    return {"true": shown, "file": str(part.files[place]) if part.files else ""}
