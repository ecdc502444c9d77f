"""A run: one model measured, with everything that decided it and which images it got right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, Evaluation
from dcmerge.vectors.mix import Mix
from dcmerge.vectors.task_vectors import TaskVectors

#: What led to a run: a live look, a point of a sweep, a row of a comparison, an evaluation that somebody asked for.
KINDS = LOOK, POINT, COMPARISON, EVALUATION = "look", "point", "comparison", "evaluation"


@dataclass(frozen=True)
class SetId:
    """A set of models as runs tell it: its name, and the hash of the content of its base and experts."""

    name: str
    hash: str

    @classmethod
    def of(cls, vectors: TaskVectors, name: str) -> SetId:
        """Reads every file once in this process, as ``TaskVectors.fingerprint`` does. A mix makes no other set."""
        return cls(name, (vectors.plain or vectors).fingerprint[:32])


@dataclass(frozen=True, eq=False)
class Run:
    """One measured model. ``id`` and ``made`` (ISO, UTC) are the store's to give; until then they are empty.

    ``method`` is a slug, or the name of a reference ("zero-shot", "experts"); ``variant`` the row's own name where one method
    has several. ``images`` is ``images_of`` what it was measured on: runs with the same one can be compared image by image.
    ``group`` is the id of the sweep, comparison or job; ``tried`` what the values were chosen from ("best of 40 on 300
    validation images a task"). ``recipe`` is a recipe as plain data.
    """

    kind: str
    set: SetId
    method: str
    evaluation: Evaluation
    images: str
    values: Mapping[str, Any] = field(default_factory=dict)
    alpha: float | None = None
    alpha_origin: str = ""
    variant: str = ""
    group: str = ""
    recipe: Mapping[str, Any] | None = None
    seconds: float | None = None
    tried: str = ""
    name: str = ""
    note: str = ""
    starred: bool = False
    id: str = ""
    made: str = ""

    @property
    def split(self) -> str:
        return self.evaluation.split

    @property
    def hits(self) -> dict[str, Tensor]:
        """Which images were right, bool (N,), by task."""
        return {name: task.hits for name, task in self.evaluation.tasks.items()}

    @property
    def accuracies(self) -> dict[str, float]:
        """Top-1 by task."""
        return {name: task.accuracy for name, task in self.evaluation.tasks.items()}

    @property
    def normalised(self) -> dict[str, float | None]:
        """Accuracy divided by the own expert's, by task; None where that is not known."""
        return {name: task.normalised for name, task in self.evaluation.tasks.items()}

    @property
    def mix_text(self) -> str:
        """What the mixer did, in words, as the recipe has it; empty where it did nothing."""
        try:
            return Mix.from_data((self.recipe or {}).get("mix") or {}).text
        except InputError:  # of another version, in a folder that was shared
            return "a mix that is not known here"

    @property
    def identity(self) -> str:
        """Equal for the same model on the same images with the same outcome, looked at for the same reason: one run then."""
        recipe = {key: value for key, value in (self.recipe or {}).items() if key not in ("versions", "inputs", "scale_origin")}
        about = [self.kind, self.group, self.set.hash, self.method, self.variant, self.alpha, self.images]
        text = json.dumps([*about, dict(self.values), recipe], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode())
        for task, hits in self.hits.items():
            digest.update(task.encode() + bytes(hits.numpy()))
        return digest.hexdigest()


def images_of(bench: Bench, split: str, limit: int | None, seed: int = 0) -> str:
    """A digest of the images that these settings mean: of every task's labels, and of some of its pixels. Remembered.

    Labels alone could agree by chance where two data sets are sorted by class.
    """

    def computed() -> str:
        digest = hashlib.sha256(split.encode())
        for task in bench.tasks:
            part = bench.split(task, split, limit, seed)
            some = part.images[:: max(1, len(part) // 8)]
            digest.update(task.encode() + part.labels.numpy().tobytes() + some.contiguous().numpy().tobytes())
        return digest.hexdigest()[:32]

    return bench.memo.get(("runs.images", split, limit, seed), computed)
