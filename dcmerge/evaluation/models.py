"""What is evaluated: an image encoder's weights, and what single tasks add to them where a method keeps a part per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from dcmerge.evaluation.encoders import Edit, ImageEncoder
from dcmerge.vectors.task_vectors import Delta

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class TaskModule:
    """What one task adds to a merged model at inference, when the task of an image is known. Each part may be missing.

    ``delta(name, merged)`` replaces the merged delta of a parameter by the task's own; ``edits`` change the outputs of the
    encoder's submodules on the way; ``repair`` changes the embedding (N, d) before its length is made one. ``size`` is the
    number of values to be stored for it.
    """

    delta: Callable[[str, Delta], Delta] | None = None
    edits: Mapping[str, Edit] = field(default_factory=dict)
    repair: Edit | None = None
    size: int = 0


@dataclass(frozen=True, eq=False)
class Assembly:
    """A network put together from whole blocks of several models, in ``encoder`` with ``weights``.

    ``blocks`` names each block that was chosen, in order; ``depth`` is how many the base has, perhaps another number.
    """

    encoder: ImageEncoder
    weights: Weights
    blocks: tuple[str, ...]
    depth: int


@dataclass(frozen=True, eq=False)
class Model:
    """Weights for every task, or by ``own_weights`` for each, with the tasks' modules. ``encoder``: where it is another one."""

    weights: Weights
    modules: Mapping[str, TaskModule] = field(default_factory=dict)
    own_weights: Callable[[str], Weights] | None = None
    encoder: ImageEncoder | None = None

    @property
    def is_one(self) -> bool:
        """One and the same model for every task."""
        return not self.modules

    def weights_for(self, task: str) -> Weights:
        return self.own_weights(task) if self.own_weights else self.weights
