"""DoRA: an adapter put onto its base, as a model of whole weights.

DoRA keeps a weight's length and its direction apart: W' = m · (W + s B A) / ‖W + s B A‖, row by row or column by column, so its
change is no product of factors. With the base at hand it is a full delta (arXiv 2402.09353).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, LowRank, TensorInfo
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError


class Applied(Checkpoint):
    """What a model holds whose base an adapter was merged into; weights that are not adapted are the base's."""

    kind = "adapter on its base"

    def __init__(self, base: Checkpoint, adapter: LoraCheckpoint) -> None:
        infos = {n: TensorInfo(i.shape, torch.float32) if n in adapter.infos else i for n, i in base.infos.items()}
        super().__init__(adapter.path, infos, {name: adapter.source_names.get(name, name) for name in infos}, adapter.seen)
        self.notes = adapter.notes
        self._base, self._adapter = base, adapter

    def read(self, name: str) -> Tensor:
        if name not in self._adapter.infos:
            return self._base.tensor(name)
        value, own = self._adapter.read(name), self._base.tensor(name).float()
        if not isinstance(value, LowRank):
            return value.float()
        moved = own + value.dense().float().reshape(own.shape)
        magnitude = self._adapter.magnitude(name)
        return moved if magnitude is None else with_length(moved, magnitude.float())


def with_length(weight: Tensor, magnitude: Tensor) -> Tensor:
    """``weight`` (m, n, ...) with the lengths ``magnitude``: of its columns where they are a row, else of its rows.

    A row is LyCORIS' (1, n); PEFT's of a convolution, (1, m, 1, 1), are lengths of rows all the same.
    """
    is_row = magnitude.ndim == 2 and magnitude.shape == (1, weight.shape[1])
    rows = magnitude.numel() == weight.shape[0] and not is_row
    axis, size = (0, weight.shape[0]) if rows else (1, weight.shape[1])
    others = [place for place in range(weight.ndim) if place != axis]
    shape = [size if place == axis else 1 for place in range(weight.ndim)]
    return weight * (magnitude.reshape(shape) / torch.linalg.vector_norm(weight, dim=others, keepdim=True))


def applied(base: Checkpoint | None, experts: dict[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Every adapter of a set as a model where one of them is a DoRA; the experts as they are where none is.

    Raises InputError without a base, and where the base lacks an adapted weight.
    """
    adapters: Mapping[str, LoraCheckpoint] = {task: one for task, one in experts.items() if isinstance(one, LoraCheckpoint)}
    with_lengths = [task for task, one in adapters.items() if one.with_magnitudes]
    if not with_lengths or len(adapters) < len(experts):
        return experts
    if base is None:
        raise InputError(f"{', '.join(with_lengths)} uses DoRA, whose changes need the base's weights, got no base", "base")
    for task, one in adapters.items():
        if lost := [name for name in one.adapted if name not in base.infos]:
            raise InputError(f"the base lacks {len(lost)} weights that {task} adapts, such as {shown(lost[0])}")
    return {task: Applied(base, one) for task, one in adapters.items()}
