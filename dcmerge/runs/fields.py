"""Runs as plain data and back, every field checked: what comes from a file may be damaged, or somebody's trap."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError
from dcmerge.evaluation import Evaluation, LogitScale, TaskAccuracy
from dcmerge.runs.run import KINDS, Run, SetId

#: No text of a run is longer; a note is a few sentences, a split's rule one.
LONGEST_TEXT = 10_000
_ID = re.compile(r"[\w.-]{0,80}", re.ASCII)
_SPLITS = ("val", "test")
_TEXTS = ("method", "images", "alpha_origin", "variant", "group", "tried", "name", "note", "id", "made")
#: The fields of a run's data, in the order in which a reader wants them.
NAMES = tuple(field.name for field in fields(Run))


def to_data(run: Run) -> dict[str, Any]:
    """Plain data for JSON: hits as hexadecimal digits of packed bits. ``from_data`` makes the same run of it."""
    measured = run.evaluation
    found = {name: getattr(run, name) for name in NAMES if name not in ("set", "evaluation", "values", "recipe")}
    return {
        **found,
        "set": asdict(run.set),
        "values": dict(run.values),
        "recipe": None if run.recipe is None else dict(run.recipe),
        "evaluation": {**evaluation_about(measured), "tasks": [task_data(task) for task in measured.tasks.values()]},
    }


def evaluation_about(measured: Evaluation) -> dict[str, Any]:
    """What an evaluation says besides its tasks."""
    return {
        "model": measured.model,
        "split": measured.split,
        "limit": measured.limit,
        "seed": measured.seed,
        "split_rules": dict(measured.split_rules),
        "logit_scale": asdict(measured.logit_scale) if measured.logit_scale else None,
    }


def task_data(task: TaskAccuracy) -> dict[str, Any]:
    return {
        "task": task.task,
        "images": task.images,
        "hits": packed(task.hits).hex(),
        "expert": task.expert,
        "joint": task.joint_hits,
    }


def packed(hits: Tensor) -> bytes:
    """Eight images a byte, the first one in the highest bit."""
    return np.packbits(hits.numpy().astype(bool)).tobytes()


def unpacked(bits: bytes, images: int) -> Tensor:
    """bool (images,); raises InputError where there are not exactly as many bytes as these images need."""
    if len(bits) != (images + 7) // 8:
        raise InputError(f"hits: expected {(images + 7) // 8} bytes for {images} images, got {len(bits)}")
    return torch.from_numpy(np.unpackbits(np.frombuffer(bits, np.uint8), count=images).astype(bool))


def from_data(data: Any) -> Run:
    """The run that ``to_data`` made this of; raises InputError that names the field where it is none."""
    found = _mapping("run", data)
    if unknown := [name for name in found if name not in NAMES]:
        raise InputError(f"run: expected {', '.join(NAMES)}, got the unknown field {shown(unknown[0])!r:.100}")
    texts = {name: _text(name, found.get(name, "")) for name in _TEXTS}
    return checked(
        Run(
            found.get("kind"),  # type: ignore[arg-type]
            _set_id(found.get("set")),
            evaluation=_evaluation(found.get("evaluation")),
            values=_mapping("values", found.get("values", {})),
            recipe=None if found.get("recipe") is None else _mapping("recipe", found["recipe"]),
            alpha=_number("alpha", found.get("alpha")),
            seconds=_number("seconds", found.get("seconds")),
            starred=found.get("starred", False) is True,
            **texts,
        )
    )


def checked(run: Run) -> Run:
    """The run, its texts without signs that do not print; raises InputError for one that cannot be kept."""
    if run.kind not in KINDS:
        raise InputError(f"kind: expected one of {', '.join(KINDS)}, got {run.kind!r:.100}")
    if not run.method or not run.images:
        raise InputError("run: expected a method and the digest of its images, got none")
    if not run.evaluation.tasks or not all(task.images for task in run.evaluation.tasks.values()):
        raise InputError("run: expected at least one task, each with images, got none")
    if run.evaluation.split not in _SPLITS:
        raise InputError(f"split: expected one of {', '.join(_SPLITS)}, got {run.evaluation.split!r:.100}")
    if not _ID.fullmatch(run.id):
        raise InputError(f"id: expected letters, digits, dots and dashes, at most 80 of them, got {run.id!r:.100}")
    if run.made and made_at(run) is None:
        raise InputError(f"made: expected a time as 2026-01-31T12:00:00+00:00, got {run.made!r:.100}")
    for name, value in (("values", run.values), ("recipe", run.recipe)):
        _as_json(name, value)
    return replace(run, **{name: _text(name, getattr(run, name)) for name in _TEXTS})


def _as_json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: expected plain data that JSON can hold, got {str(error):.200}") from None


def parsed(name: str, text: Any) -> Any:
    """JSON from a store's column; raises InputError for anything else."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise InputError(f"{name}: expected JSON, got something else") from None


def evaluation_of(about: Mapping[str, Any], tasks: list[TaskAccuracy]) -> Evaluation:
    """An evaluation from ``evaluation_about`` and its tasks; raises InputError for fields of another kind."""
    rules = _mapping("split_rules", about.get("split_rules", {}))
    scale = about.get("logit_scale")
    if scale is not None:
        given = _mapping("logit_scale", scale)
        scale = LogitScale(_number("logit_scale", given.get("value")) or 1.0, _text("logit_scale", given.get("origin", "")))
    return Evaluation(
        _text("model", about.get("model", "")),
        _text("split", about.get("split", "")),
        {task.task: task for task in tasks},
        _count("limit", about.get("limit")),
        _count("seed", about.get("seed")) or 0,
        {_text("split_rules", task): _text("split_rules", rule) for task, rule in rules.items()},
        scale,
    )


def task_of(task: Any, images: Any, hits: Any, expert: Any, joint: Any) -> TaskAccuracy:
    """One task's accuracy; raises InputError where a field is not what it must be."""
    count = _count("images", images)
    if not isinstance(hits, bytes) or count is None:
        raise InputError("hits: expected packed bits and the number of images, got something else")
    right = _count("joint", joint)
    if right is not None and right > count:
        raise InputError(f"joint: expected at most {count} images, got {right}")
    share = _number("expert", expert)
    if share is not None and not 0 <= share <= 1:
        raise InputError(f"expert: expected a share from 0 to 1, got {share!r}")
    return TaskAccuracy(_text("task", task), unpacked(hits, count), share, right)


def _evaluation(data: Any) -> Evaluation:
    found = _mapping("evaluation", data)
    tasks = found.get("tasks")
    if not isinstance(tasks, list):
        raise InputError(f"tasks: expected a list, got {tasks!r:.100}")
    return evaluation_of(found, [_task(_mapping("task", one)) for one in tasks])


def _task(data: Mapping[str, Any]) -> TaskAccuracy:
    try:
        hits = bytes.fromhex(data.get("hits", ""))
    except (TypeError, ValueError):
        raise InputError("hits: expected hexadecimal digits, got something else") from None
    return task_of(data.get("task"), data.get("images"), hits, data.get("expert"), data.get("joint"))


def _set_id(data: Any) -> SetId:
    found = _mapping("set", data)
    return SetId(_text("set", found.get("name", "")), _text("set", found.get("hash", "")))


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{name}: expected names with values, got {value!r:.100}")
    return dict(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise InputError(f"{name}: expected a text of at most {LONGEST_TEXT} characters, got {value!r:.100}")
    return "".join(sign if sign.isprintable() or (sign == "\n" and name == "note") else " " for sign in value)


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name}: expected a finite number, got {value!r:.100}")
    return float(value)


def _count(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31):
        raise InputError(f"{name}: expected a whole number, got {value!r:.100}")
    return value


def made_at(run: Run) -> datetime | None:
    """When the run was made, in local time; None where nobody can read it."""
    try:
        return datetime.fromisoformat(run.made).astimezone()
    except (ValueError, OverflowError):
        return None
