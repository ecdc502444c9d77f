"""DC-Merge: smooth each task's singular values, align in a shared cover basis, merge there, project back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.checkpoints import LowRank
from dcmerge.errors import WARNING
from dcmerge.methods.declare import Choice, Flag, Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.tsv_m import RANK
from dcmerge.methods.usual_scales import as_long_as_of_eight
from dcmerge.spectral.alignment import (
    CoverBasis,
    aligned_deltas,
    diagonal_blocks,
    elected,
    keep_count,
    keep_thresholds,
    kept_entries,
    own_blocks,
    own_kept_blocks,
    per_task,
)
from dcmerge.spectral.linalg import SVD
from dcmerge.spectral.spectra import SMOOTHINGS, smooth
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta

#: The authors' share of the kept entries, for full fine-tuning and eight adapters of rank 16 alike.
PUBLISHED_KEEP = 1e-3


@dataclass(frozen=True)
class Trace:
    """Every stage of DC-Merge on one matrix, k = T·r. Plots and tests read it; each stage is computed where it is asked for."""

    layer: Layer
    smoothing: str
    smoothed: Tensor  # (T, r)
    basis: CoverBasis
    count: int  # entries that each task keeps
    elect: bool
    block_mask: bool
    weights: Tensor | None = None  # (T,): by which the deltas were multiplied

    @property
    def truncated(self) -> tuple[SVD, ...]:
        """Each task's singular vectors and values, of which the merge itself needs the values alone, once there is a basis."""
        return self.layer.factors(self.basis.block)

    @cached_property
    def aligned(self) -> Tensor:
        """M_t = C_Uᵀ D̄_t C_V, (T, k, k)."""
        return aligned_deltas(self.basis, self.smoothed)

    @cached_property
    def thresholds(self) -> Tensor:
        """The magnitude of each task's smallest kept entry, (T,)."""
        return keep_thresholds(self.aligned, self.count)

    @cached_property
    def kept(self) -> Tensor:
        """The largest entries of each task, bool (T, k, k)."""
        return kept_entries(self.aligned, self.thresholds)

    def _combined(self, survivors: Tensor) -> Tensor:
        """Φ of entries (T, ...): TIES' disjoint mean, or without election the sum."""
        return elected(survivors, weights=self.weights) if self.elect else survivors.sum(dim=0)

    def _of_one_task(self, blocks: Tensor) -> Tensor:
        """``_combined`` of blocks (T, r, r) to each of which one task alone contributes."""
        if not self.elect or self.weights is None:
            return blocks
        sizes = per_task(self.weights.abs(), blocks)
        return blocks / sizes.where(sizes > 0, 1)

    @cached_property
    def elected(self) -> Tensor:
        """Φ(M_1..M_T) of the kept entries, (k, k)."""
        return self._combined(self.aligned * self.kept)

    @cached_property
    def blocks(self) -> Tensor:
        """The T diagonal blocks of ``elected``, (T, r, r): with the mask nothing else needs to be computed."""
        if (alone := own_kept_blocks(self.basis, self.smoothed, self.count)) is not None:
            return self._of_one_task(alone)
        own = own_blocks(self.aligned, self.basis.tasks).contiguous()  # (T, T, r, r)
        return self._combined(own * kept_entries(own, self.thresholds))

    @cached_property
    def masked(self) -> Tensor:
        """``elected`` with zeros outside the diagonal blocks, (k, k); all of it without the mask."""
        return torch.block_diag(*self.blocks) if self.block_mask else self.elected

    @cached_property
    def merged(self) -> LowRank:
        """C_U (Φ(M_1..M_T) ∘ mask) C_Vᵀ, (m, n) (Eq. 11), as factors."""
        if self.block_mask:
            return self.basis.project_blocks_back(self.blocks)
        return self.basis.project_back(self.elected)

    @cached_property
    def surviving(self) -> Tensor:
        """Each task's aligned delta after keep and mask, (T, k, k): what is left of it in the merge."""
        survivors = self.aligned * self.kept
        return survivors * diagonal_blocks(self.basis.tasks, self.basis.block) if self.block_mask else survivors


def smoothing_in_use(smoothing: str, kind: str) -> str:
    """What "auto" means: none for full fine-tuning (truncation is regarded as implicit smoothing), average for LoRA."""
    return ("average" if kind == "lora" else "none") if smoothing == "auto" else smoothing


def usual_scale_of(kind: str, tasks: int, *, smoothing: str, **_: object) -> float:
    """√(8/T), at least 1, where all singular values are made their average; else 1.

    Average smoothing shortens the task vectors, and T nearly orthogonal ones add up to a length of √T: this keeps the length that
    the merge of eight, the papers' number, has at 1. At 1 the merge of two or three of the demo's adapters lies below averaging;
    for two, three, four and eight of them the best of 1, 1.5, 2, 2.5, 3 and 4 on validation was 2, 2, 2 and 1.
    """
    if smoothing_in_use(smoothing, kind) != "average":
        return 1.0
    return as_long_as_of_eight(tasks, 1.0)


def entries_kept(layer: Layer, rank: int, keep: float | None) -> int:
    """How many entries of each aligned delta are kept at this weight.

    A share counts the entries of the authors' bases: k = min(m, n) wide for full fine-tuning, whose columns beyond T·r are
    padding, and k = T·r wide for adapters. None keeps the authors' 1e-3 · k², but at least one entry for each of a task's r own
    directions: for eight adapters of rank 16 and for CLIP's matrices that is the authors' number, for two adapters theirs would
    be a single entry.
    """
    padded = layer.vectors.kind == "full" and rank == layer.default_rank()
    width = min(layer.shape) if padded else rank * len(layer.tasks)
    if keep is None:
        return max(keep_count(PUBLISHED_KEEP, width), rank)
    return keep_count(keep, width)


def notes_on_keep(layers: Sequence[Layer], *, rank: int | None, keep: float | None, **_: object) -> tuple[str, ...]:
    """How many entries of how many directions a merge keeps, and a warning where it is fewer than one a direction."""
    found = {(entries_kept(layer, r, keep), r) for layer in layers if layer.is_matrix and (r := layer.rank(rank))}
    if not found:
        return ()
    entries, directions = (_span(values) for values in zip(*found, strict=True))
    told = f"keeps {entries} entries a task and matrix, for {directions} directions of the task's own"
    if not any(count < r for count, r in found):
        return (told,)
    return (told, f"{WARNING}fewer entries than directions are kept, so most directions are lost; auto keeps one for each")


def _span(values: Iterable[int]) -> str:
    low, high = min(numbers := set(values)), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _smoothed(s: Tensor, own: int, strategy: str, rho: float) -> Tensor:
    """The first ``own`` of (r,) singular values flattened among themselves: beyond an adapter's rank there is no direction."""
    return torch.cat([smooth(s[:own], strategy, rho), s.new_zeros(len(s) - own)])


def trace(
    layer: Layer,
    *,
    rank: int | None = None,
    smoothing: str = "auto",
    rho: float = 5.0,
    keep: float | None = None,
    elect: bool = True,
    block_mask: bool = True,
) -> Trace | None:
    """All stages of DC-Merge on one matrix; None where not one component a task fits (T > min(m, n)).

    Adapters of a smaller rank than the largest at this weight are filled up with components of singular value zero, and smoothed
    over their own. ``keep`` None is max(1e-3 · k², r) entries a task, see ``entries_kept``.
    """
    r = layer.rank(rank)
    if r == 0:
        return None
    values, basis = layer.kept_values(r), layer.cover_basis(r)
    strategy = smoothing_in_use(smoothing, layer.vectors.kind)
    own = layer.own_ranks(r)
    if min(own) == r:
        smoothed = smooth(torch.stack(values), strategy, rho)
    else:
        smoothed = torch.stack([_smoothed(s, rank, strategy, rho) for s, rank in zip(values, own, strict=True)])
    return Trace(layer, strategy, smoothed, basis, entries_kept(layer, r, keep), elect, block_mask, layer.weights)


@merging_method(
    "dc_merge",
    title="DC-Merge",
    idea="Smooth each task's singular values so that weak directions survive, align all tasks in one orthogonal cover basis, "
    "merge there and project back.",
    formula=r"\tau = C_U\left(\Phi(M_1,\ldots,M_T)\circ\mathrm{mask}\right)C_V^\top,\quad M_t=C_U^\top \bar D_t C_V",
    source="DC-Merge 2026, arXiv 2603.06242",
    keeps_factors=True,
    sees_factors=True,
    notes=notes_on_keep,
    usual_scale_of=usual_scale_of,
    differs="Where the authors' 0.1 % of the entries are fewer than a task has directions, one entry for each direction is "
    "kept. Directions of no weight (equal experts, deltas of zero) are left out, where the authors' code completes "
    "them at random.",
)
def dc_merge(
    layer: Layer,
    *,
    rank: Annotated[int | None, RANK] = None,
    smoothing: Annotated[
        str,
        Choice(
            "Smoothing",
            "How the kept singular values are made flatter. auto is none for full fine-tuning and average for LoRA, as in the "
            "authors' code.",
            ("auto", *SMOOTHINGS),
        ),
    ] = "auto",
    rho: Annotated[
        float,
        Number(
            "ρ",
            "Linear smoothing only: the ratio of the largest to the smallest smoothed value.",
            1,
            1000,
            0.5,
            soft_high=20,
            log=True,
            when=("smoothing", ("linear",)),
        ),
    ] = 5.0,
    keep: Annotated[
        float | None,
        Number(
            "Kept entries",
            "Share of the entries of each aligned delta that is kept, by magnitude. The authors keep 0.001.",
            0,
            1,
            1e-4,
            auto="0.001, but at least one entry for each of a task's own directions",
            soft_high=0.1,
            soft_low=1e-4,
            log=True,
        ),
    ] = None,
    elect: Annotated[bool, Flag("Elect signs", "On: TIES in the cover basis. Off: the sum of the kept entries.")] = True,
    block_mask: Annotated[bool, Flag("Block mask", "Drops the entries that mix the directions of two tasks.")] = True,
) -> Delta:
    """D = C_U (Φ(M_1..M_T) ∘ mask) C_Vᵀ; the mean of the deltas where not one component a task fits.

    The defaults are the authors' published code: FFT without explicit smoothing, LoRA with average smoothing, 0.1 % of
    the entries kept by magnitude (ties included), disjoint mean of elected signs, T diagonal blocks. They differ in one thing:
    where 0.1 % are fewer than r entries, r are kept (``keep=0.001`` is the authors' rule everywhere).
    """
    stages = trace(layer, rank=rank, smoothing=smoothing, rho=rho, keep=keep, elect=elect, block_mask=block_mask)
    return layer.mean() if stages is None else layer.in_kind(stages.merged)
