"""Rows of a comparison as plain data and back, with every single image's hit, so that differences can be drawn again."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from dcmerge.comparison import Row, Seconds
from dcmerge.diagnosis import DirSim
from dcmerge.evaluation import Difference, Drift, Evaluation, Scale, TaskAccuracy


def row_data(row: Row) -> dict[str, Any]:
    """Plain data of a row; ``row_from`` undoes it without loss."""
    data = {part.name: getattr(row, part.name) for part in fields(Row)}
    for name in ("scale", "seconds", "difference", "dirsim", "drift"):
        data[name] = None if data[name] is None else asdict(data[name])
    data["parameters"] = dict(row.parameters)
    data["evaluation"] = None if row.evaluation is None else _evaluation_data(row.evaluation)
    return data


def row_from(data: dict[str, Any]) -> Row:
    """The row that ``row_data`` described."""
    plain = {name: data[name] for name in ("name", "title", "parameters", "error", "peak_bytes")}
    scale, drift = data["scale"], data["drift"]
    return Row(
        **plain,
        scale=scale and Scale(**{**scale, "curve": _tuples(scale["curve"])}),
        evaluation=data["evaluation"] and _evaluation_from(data["evaluation"]),
        seconds=data["seconds"] and Seconds(**data["seconds"]),
        difference=data["difference"] and Difference(**data["difference"]),
        dirsim=data["dirsim"] and DirSim(**data["dirsim"]),
        drift=drift and Drift(**{name: _tuples(value) for name, value in drift.items()}),
    )


def _evaluation_data(evaluation: Evaluation) -> dict[str, Any]:
    tasks = {name: {"hits": _text(task.hits), "expert": task.expert} for name, task in evaluation.tasks.items()}
    return {"model": evaluation.model, "split": evaluation.split, "limit": evaluation.limit, "seed": evaluation.seed,
            "tasks": tasks}  # fmt: skip


def _evaluation_from(data: dict[str, Any]) -> Evaluation:
    tasks = {name: TaskAccuracy(name, _hits(task["hits"]), task["expert"]) for name, task in data["tasks"].items()}
    return Evaluation(**{**data, "tasks": tasks})


def _text(hits: Tensor) -> str:
    return "".join("1" if hit else "0" for hit in hits.tolist())


def _hits(text: str) -> Tensor:
    return torch.tensor([character == "1" for character in text], dtype=torch.bool)


def _tuples(value: Any) -> Any:
    """Lists, also inside lists, as the tuples that they were."""
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value
