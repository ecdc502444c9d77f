"""What there is to see in a set of task vectors: spectra, concentration, overlap and directional consistency, as plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dcmerge.checkpoints import dense
from dcmerge.evaluation import Bench
from dcmerge.methods import deltas_of, method, planned
from dcmerge.methods.dc_merge import Trace, trace
from dcmerge.methods.loop import Plan
from dcmerge.spectral.alignment import (
    block_energy,
    concatenated,
    cosine,
    dirsim,
    overlap,
    reconstruction_error,
    subspace_alignment_ratio,
)
from dcmerge.spectral.linalg import frobenius_norm, truncated_svd
from dcmerge.spectral.spectra import KeyFigures, key_figures, leading_count, top_share
from dcmerge.studies.pieces import Piece, Pieces, stacked
from dcmerge.vectors.layers import Layer, layer_of
from dcmerge.vectors.naming import by_depth
from dcmerge.vectors.task_vectors import Delta, TaskVectors


@dataclass(frozen=True, eq=False)
class TaskSpectrum:
    """One task's spectrum of one matrix at three stages. ``raw`` holds all components, the others the kept ones."""

    task: str
    raw: Tensor
    smoothed: Tensor
    aligned: Tensor  # singular values of what survives keep and mask in the cover basis
    figures: KeyFigures
    smoothed_figures: KeyFigures


@dataclass(frozen=True, eq=False)
class LayerSpectra:
    """All tasks' spectra of one matrix, and the smoothing in use."""

    layer: str
    rank: int
    smoothing: str
    tasks: tuple[TaskSpectrum, ...]


def layer_spectra(layer: Layer, **parameters: Any) -> LayerSpectra:
    """Raw, smoothed and aligned spectra of one matrix; ``parameters`` are DC-Merge's (rank, smoothing, rho, keep, …)."""
    spectra = layer.spectra()  # first: a smaller rank then reuses its factors
    stages = trace(layer, **parameters)
    if stages is None:
        empty = torch.zeros(0)
        tasks = [
            TaskSpectrum(t, s, empty, empty, key_figures(s), key_figures(empty))
            for t, s in zip(layer.tasks, spectra, strict=True)
        ]
        return LayerSpectra(layer.name, 0, "none", tuple(tasks))
    tasks = []
    for i, task in enumerate(layer.tasks):
        aligned = _sparse_singular_values(stages.surviving[i])[: stages.basis.block]
        raw, smoothed = spectra[i], stages.smoothed[i]
        tasks.append(TaskSpectrum(task, raw, smoothed, aligned, key_figures(raw), key_figures(smoothed)))
    return LayerSpectra(layer.name, stages.basis.block, stages.smoothing, tuple(tasks))


def _sparse_singular_values(M: Tensor) -> Tensor:
    """Singular values of a matrix with few entries: empty rows and columns add only zeros."""
    return torch.linalg.svdvals(M[M.any(dim=1)][:, M.any(dim=0)])


@dataclass(frozen=True, eq=False)
class Concentration:
    """Share of the energy (s²) in the leading 5 % of the components, (T, layers)."""

    tasks: tuple[str, ...]
    layers: tuple[str, ...]
    share: Tensor


def matrices(vectors: TaskVectors) -> list[str]:
    """Names of the parameters with a spectrum, by depth."""
    return by_depth(name for name in vectors.parameters if layer_of(vectors, name).is_matrix)


def concentration(vectors: TaskVectors, progress: Callable[[float, str], None] | None = None) -> Concentration:
    """Energy concentration of every matrix of every task."""
    return concentrations(vectors).whole(progress)


def concentrations(vectors: TaskVectors) -> Pieces[Concentration]:
    """``concentration`` matrix by matrix."""
    names = tuple(matrices(vectors))

    def look(name: str) -> Piece:
        return {"share": torch.tensor(_top_shares(layer_of(vectors, name)))}

    def together(found: Mapping[str, Piece]) -> Concentration:
        unknown = torch.full((len(vectors.tasks),), math.nan)
        return Concentration(vectors.tasks, names, stacked(found, names, "share", unknown).T)

    return Pieces("concentration", vectors, names, look, together)


def _top_shares(layer: Layer) -> list[float]:
    """``top_share`` of every task: of the kept components and the whole energy, ‖D‖², where so many are kept.

    The other components would take as long again, and nobody else needs all of them.
    """
    rank, leading = layer.default_rank(), leading_count(min(layer.shape))
    if layer.vectors.kind == "lora" or leading > rank:
        return [top_share(s) for s in layer.spectra()]
    kept = [s[:leading].double().square().sum().item() for s in layer.kept_values(rank)]
    whole = [frobenius_norm(delta) ** 2 for delta in layer.deltas()]
    return [part / energy if energy > 0 else 0.0 for part, energy in zip(kept, whole, strict=True)]


@dataclass(frozen=True, eq=False)
class LayerAlignment:
    """How the experts of one matrix share directions: overlaps (T, T) before and after whitening."""

    stages: Trace
    before_U: Tensor
    after_U: Tensor
    before_V: Tensor
    after_V: Tensor
    whitening_distance: tuple[float, float]  # ‖C − [U_1..U_T]‖_F / √(T r), of U and of V

    @cached_property
    def energy(self) -> Tensor:
        """Share of each task's ‖M_t‖² by block, (T, T, T)."""
        return block_energy(self.stages.aligned, self.stages.basis.tasks)

    @cached_property
    def reconstruction(self) -> tuple[float, ...]:
        """How far the cover basis is from rebuilding each task's smoothed delta, relative; most of the work of all here."""
        stages = self.stages
        each = zip(stages.truncated, stages.smoothed, stages.aligned, strict=True)
        return tuple(reconstruction_error(svd, s, M, stages.basis) for svd, s, M in each)

    @property
    def kept_share(self) -> list[float]:
        """Share of ‖M_t‖² in the kept entries."""
        return _energy_shares(self.stages.aligned * self.stages.kept, self.stages.aligned)

    @property
    def surviving_share(self) -> list[float]:
        """Share of ‖M_t‖² left after keep and block mask."""
        return _energy_shares(self.stages.surviving, self.stages.aligned)

    @property
    def own_block_share(self) -> list[float]:
        """Share of each aligned delta's energy in its own block: the mask drops the rest."""
        return [self.energy[t, t, t].item() for t in range(len(self.energy))]


def _energy_shares(part: Tensor, whole: Tensor) -> list[float]:
    part, whole = part.double().square().sum(dim=(1, 2)), whole.double().square().sum(dim=(1, 2))
    return (part / whole.clamp_min(torch.finfo(torch.float64).tiny)).tolist()


def layer_alignment(layer: Layer, **parameters: Any) -> LayerAlignment | None:
    """How the experts share directions before and after whitening; None where no component a task fits."""
    stages = trace(layer, **parameters)
    if stages is None:
        return None
    before_U, after_U, moved_U = _side(stages, "U", stages.basis.U)
    before_V, after_V, moved_V = _side(stages, "V", stages.basis.V)
    return LayerAlignment(stages, before_U, after_U, before_V, after_V, (moved_U, moved_V))


def _side(stages: Trace, side: str, whitened: Tensor) -> tuple[Tensor, Tensor, float]:
    """Overlap of the experts' singular vectors before and after whitening, (T, T), and how far whitening moved them."""
    own = [getattr(svd, side) for svd in stages.truncated]
    blocks = whitened.split(stages.basis.block, dim=1)
    moved = (whitened - concatenated(stages.truncated, side)).norm().item() / math.sqrt(whitened.shape[1])
    return overlap(own, own), overlap(blocks, own), moved


@dataclass(frozen=True, eq=False)
class Consistency:
    """Merged against each expert, (T, layers): DirSim, subspace alignment ratio, cosine."""

    layers: tuple[str, ...]
    measures: Mapping[str, Tensor]


#: Names of the measures, which the glossary explains.
MEASURES = ("DirSim", "Subspace alignment", "Cosine")


def consistency(
    vectors: TaskVectors,
    merged: Mapping[str, Delta],
    *,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Consistency:
    """Directional consistency of a merged task vector with every expert, layer by layer.

    Both sides are truncated: an expert to the rank DC-Merge gives it, the merged matrix to that of all tasks together.
    """
    study = _consistencies("consistency", vectors, merged.__getitem__)
    return study.whole(progress, cancelled)


def consistencies(
    vectors: TaskVectors, slug: str, parameters: Mapping[str, Any], bench: Bench | None = None
) -> Pieces[Consistency]:
    """``consistency`` of a merge that is made on the way, matrix by matrix: never more than one merged matrix is held."""
    plans: list[Plan] = []

    def prepare(cancelled: Callable[[], bool]) -> None:
        plans.append(planned(vectors, slug, parameters, bench=bench, cancelled=cancelled))

    def merged(name: str) -> Delta:
        return dict(deltas_of(plans[-1], names=(name,)))[name]

    chosen = method(slug)
    what = f"consistency of {slug} {sorted(chosen.check(parameters).items())}"
    study = _consistencies(what, vectors, merged)
    return replace(study, prepare=prepare, kept="images" not in chosen.needs and not chosen.origin)


def _consistencies(what: str, vectors: TaskVectors, merged: Callable[[str], Delta]) -> Pieces[Consistency]:
    names = tuple(name for name in matrices(vectors) if layer_of(vectors, name).default_rank() > 0)

    def look(name: str) -> Piece:
        return {"measures": torch.tensor(_layer_consistency(layer_of(vectors, name), merged(name)))}

    def together(found: Mapping[str, Piece]) -> Consistency:
        unknown = torch.full((len(vectors.tasks), len(MEASURES)), math.nan)
        table = stacked(found, names, "measures", unknown)
        return Consistency(names, {measure: table[:, :, i].T for i, measure in enumerate(MEASURES)})

    return Pieces(what, vectors, names, look, together)


def _layer_consistency(layer: Layer, merged: Delta) -> Sequence[Sequence[float]]:
    r = layer.default_rank()
    own, whole, rows = truncated_svd(merged, r * len(layer.tasks)), dense(merged), []
    size = frobenius_norm(merged)
    for svd, delta in zip(layer.factors(r), layer.dense_deltas(), strict=True):
        rows.append((dirsim(own, svd), subspace_alignment_ratio(own, delta, size), cosine(whole, delta)))
    return rows
