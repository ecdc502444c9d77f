"""Where the whole tower's difference from the plain implementation comes from: entries that change place at the threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import models, plain
from benchmarks.measuring import Row, relative_error
from dcmerge.methods.dc_merge import trace
from dcmerge.vectors.cache import Memo
from dcmerge.vectors.layers import Layer, layer_of


@dataclass(frozen=True)
class Places:
    """Of one matrix: entries kept, entries kept by one of the two alone, the error, and the error that those explain."""

    name: str
    kept: int
    changed: int
    error: float
    explained: float


def places(folder: Path, blocks: int | None) -> Iterator[Row]:
    """Entries that only one of both keeps, over all matrices of eight ViT-B/32-sized experts, and what is left without them."""
    shapes = models.tower_shapes("ViT-B-32", blocks)
    vectors = models.opened(folder / f"b32-{blocks or 12}", shapes, models.TASKS)
    found = [_of_one(layer_of(vectors, name)) for name, shape in shapes.items() if len(shape) == 2]
    changed = [one for one in found if one.changed]
    same = [one.error for one in found if not one.changed]
    said = f"{models.TASKS} experts, ViT-B/32 image tower, {blocks or 12} of 12 blocks, {len(found)} matrices"
    yield Row(
        "a",
        f"{said}: entries that one of both keeps and the other does not",
        error=max(one.error for one in found),
        remark=f"{sum(one.changed for one in found)} of {sum(one.kept for one in found)}, in {len(changed)} matrices",
    )
    yield Row(
        "a",
        "of it, matrices in which both keep the same entries",
        error=max(same, default=None),
        remark=f"{len(same)} of {len(found)}",
    )
    for one in sorted(changed, key=lambda one: one.error)[-3:]:
        yield Row(
            "a",
            f"of it, {one.name}: {one.changed} of {one.kept} entries",
            error=one.error,
            remark=f"these entries alone make {one.explained:.1e}",
        )


def _of_one(layer: Layer) -> Places:
    deltas, rank = list(layer.dense_deltas()), layer.default_rank()
    C_U, S, C_V = plain.in_the_basis(deltas, rank, 5.0, padded=True)
    stages = trace(layer, smoothing="linear", rho=5.0, keep=plain.KEEP)
    assert stages is not None
    ours, differs = stages.masked, (stages.masked != 0) ^ (S != 0)
    error = relative_error(stages.merged.dense(), C_U @ S @ C_V.T)
    layer.vectors.memo = Memo()  # every matrix is looked at once
    return Places(layer.name, int((S != 0).sum()), int(differs.sum()), error, _share(S, ours, differs))


def _share(S: Tensor, ours: Tensor, differs: Tensor) -> float:
    """The length of the entries that only one of both has, as a share of the whole: the bases are orthonormal."""
    only = torch.where(S != 0, S, ours)[differs]
    return (only.norm() / S.norm()).item()
