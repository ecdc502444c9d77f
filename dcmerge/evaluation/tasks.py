"""A task to evaluate on: labelled images in splits, and a frozen zero-shot head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from dcmerge.errors import InputError


@dataclass(frozen=True, eq=False)
class Split:
    """Images as uint8 (N, 3, H, W) and labels as int64 (N,). ``files``: one an image, where each is a file; else none."""

    images: Tensor
    labels: Tensor
    files: tuple[Path, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, limit: int | None, seed: int = 0) -> Split:
        """At most ``limit`` images, drawn with a seed, every class in its share (largest remainders)."""
        if limit is None or limit >= len(self):
            return self
        return self.take(stratified_indices(self.labels, limit, seed))

    def take(self, indices: Tensor) -> Split:
        """Some of these, in the given order."""
        files = tuple(self.files[place] for place in indices.tolist()) if self.files else ()
        return Split(self.images[indices], self.labels[indices], files)


def stratified_indices(labels: Tensor, limit: int, seed: int = 0) -> Tensor:
    """Indices of ``limit`` images in which every class has its share, up to one image; sorted, deterministic.

    Shares are rounded down, and the images that are left go to the largest remainders.
    """
    if limit < 1:
        raise InputError(f"limit: expected at least 1 image a task, got {limit}")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    classes, counts = labels.unique(return_counts=True)
    limit = min(limit, len(labels))
    quota = counts * limit // len(labels)
    drawn = torch.randperm(len(classes), generator=generator)  # equal remainders: by lot
    by_remainder = drawn[(counts * limit % len(labels))[drawn].argsort(descending=True, stable=True)]
    quota[by_remainder[: limit - int(quota.sum())]] += 1
    members = (shuffled[labels[shuffled] == label][:n] for label, n in zip(classes, quota.tolist(), strict=True))
    return torch.cat(list(members)).sort().values


@dataclass(frozen=True, eq=False)
class Task:
    """One task. ``head`` is (classes, d), rows of unit length: cosine similarity to it decides the class."""

    name: str
    title: str
    classes: tuple[str, ...]
    head: Tensor
    splits: Mapping[str, Split]
    description: str = ""
    licence: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)

    def split(self, name: str, limit: int | None = None, seed: int = 0) -> Split:
        """A split by name, or a stratified part of it; raises InputError for an unknown split."""
        if name not in self.splits:
            raise InputError(f"split: expected one of {', '.join(self.splits)}, got {name!r}")
        return self.splits[name].subset(limit, seed)
