"""AdaRank: learn which singular components of every task vector to keep, from unlabeled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.evaluation.calibration import Calibration
from dcmerge.methods.adaptation import BATCH, RATE, STEPS, adapt, entropy, stepped
from dcmerge.methods.coefficients import combined
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.from_images import SEED, SPLIT
from dcmerge.methods.registry import merging_method
from dcmerge.spectral.linalg import SVD
from dcmerge.vectors.layers import Layer

#: Logits of components that are kept or dropped at the start, and what they are divided by before the sigmoid.
_KEPT, _DROPPED, TEMPERATURE = 0.1, -0.1, 10.0
#: Coefficients at the start: CART's, with its share of kept components, as published for eight tasks; TSV-M's own α is 1; the
#: sum's as AdaMerging's.
_STARTS, _CART_SHARE = {"task_arithmetic": 0.3, "cart": 2.3, "tsv_m": 1.0}, 0.16


@dataclass(frozen=True, eq=False)
class Components:
    """The tasks' singular components of one matrix side by side: U (m, T·r), s (T, r), V (n, T·r)."""

    U: Tensor
    s: Tensor
    V: Tensor

    @classmethod
    def of(cls, factors: Sequence[SVD]) -> Components:
        return cls(
            torch.cat([f.U for f in factors], 1), torch.stack([f.s for f in factors]), torch.cat([f.V for f in factors], 1)
        )

    def combined(self, values: Tensor) -> Tensor:
        """Σ_t U_t diag(values_t) V_tᵀ, (m, n), of values (T, r)."""
        return (self.U * values.flatten()) @ self.V.T

    def by_task(self) -> Tensor:
        """U_t diag(s_t) V_tᵀ, (T, m, n)."""
        tasks, rank = self.s.shape
        U, V = (factor.unflatten(1, (tasks, rank)).movedim(1, 0) for factor in (self.U, self.V))
        return (U * self.s[:, None]) @ V.mT


def hard_mask(logits: Tensor) -> Tensor:
    """1[σ(x / T) > ½] with the gradient of σ(x / T): a straight-through mask."""
    p = torch.sigmoid(logits / TEMPERATURE)
    return p + ((p > 0.5).to(p.dtype) - p).detach()


def first_logits(s: Tensor, share: float) -> Tensor:
    """Logits (T, r): the leading ``share`` of each task's components is kept at the start."""
    kept = torch.arange(s.shape[1]) < round(share * s.shape[1])
    return torch.where(kept, _KEPT, _DROPPED).expand(s.shape).clone()


@dataclass(eq=False)
class _Problem:
    """What is merged around which origin: components of matrices, whole deltas of all else, by parameter."""

    origin: dict[str, Tensor]
    matrices: dict[str, Components]
    others: dict[str, Tensor]

    @property
    def names(self) -> list[str]:
        return [*self.matrices, *self.others]

    def deltas(self, values: Mapping[str, Tensor], table: Tensor) -> dict[str, Tensor]:
        """Merged minus base: origin + Σ λ_t U_t diag(B_t ∘ s_t) V_tᵀ, or Σ λ_t τ_t; λ (number of parameters, T)."""
        rows = dict(zip(self.names, table, strict=True))
        found = {n: c.combined(rows[n][:, None] * values[n] * c.s) for n, c in self.matrices.items()}
        found |= {n: combined(D, rows[n]) for n, D in self.others.items()}
        return {n: self.origin[n] + delta if n in self.origin else delta for n, delta in found.items()}


def _problem(layers: Sequence[Layer], origin: str) -> _Problem:
    problem = _Problem({}, {}, {})
    for layer in layers:
        D = layer.dense_deltas().float()
        if origin == "cart":
            problem.origin[layer.name] = D.mean(dim=0)
            D = D - D.mean(dim=0)
        components = _decorrelated(layer) if origin == "tsv_m" else None
        if layer.is_matrix and ("attn" in layer.name or "mlp" in layer.name) and (components or origin != "tsv_m"):
            problem.matrices[layer.name] = components or Components.of([_svd(delta) for delta in D])
        elif origin == "tsv_m":
            problem.others[layer.name] = components.by_task() if components else D / len(D)
        else:
            problem.others[layer.name] = D
    return problem


def _svd(D: Tensor) -> SVD:
    U, s, Vt = torch.linalg.svd(D, full_matrices=False)
    return SVD(U, s, Vt.T, s)


def _decorrelated(layer: Layer) -> Components | None:
    """TSV-M's components: each task's leading ones, turned so that no two tasks' overlap; None where it takes the mean."""
    rank = layer.default_rank() if layer.is_matrix else 0
    if not rank:
        return None
    basis, factors = layer.cover_basis(rank), layer.factors(rank)
    return Components(basis.U.float(), torch.stack([f.s for f in factors]).float(), basis.V.float())


def _learned(
    layers: Sequence[Layer],
    *,
    calibration: Calibration,
    origin: str,
    start: float | None,
    share: float | None,
    iterations: int,
    learning_rate: float,
    batch: int,
    images: str,
    seed: int,
) -> dict[str, Tensor]:
    """The merged deltas after training the logits and the coefficients together."""
    problem = _problem(layers, origin)
    share = (_CART_SHARE if origin == "cart" else 1.0) if share is None else share
    logits = {name: first_logits(c.s, share) for name, c in problem.matrices.items()}
    begin = _STARTS[origin] if start is None else start
    tasks = len(layers[0].tasks)
    table, base = torch.full((len(problem.names), tasks), begin), calibration.bench.base_weights()

    def merged() -> dict[str, Tensor]:
        return problem.deltas({name: hard_mask(x) for name, x in logits.items()}, table)

    adapt(
        calibration,
        [*logits.values(), table],
        lambda batch: entropy(calibration, stepped(base, merged()), batch),
        calibration.batches(batch, images, seed),
        iterations=iterations,
        learning_rate=learning_rate,
        what="learning ranks",
    )
    return merged()


@merging_method(
    "adarank",
    title="AdaRank",
    idea="Learn for every singular component of every task vector whether to keep it, and a coefficient for every task and "
    "parameter, so that the merged model becomes surer of its predictions on unlabeled images.",
    formula=r"W^l=O^l+\sum_t\lambda_t^l\,U_t\,\mathrm{diag}(B_t\circ s_t)\,V_t^\top,\quad B_t=1[\sigma(b_t/10)>\tfrac12]",
    source="Lee et al. 2025, arXiv 2503.22178",
    needs=("weights", "base", "images", "training"),
    everywhere=True,
    prepare=_learned,
    fixed_scale="the coefficients are learned",
    differs="120 steps at a rate of 0.01 on validation images, and the masks of the last step; the authors take 10,000 at "
    "0.001 and report the best of many by test accuracy.",
    quick={"iterations": 10},
)
def adarank(
    layer: Layer,
    *,
    prepared: dict[str, Tensor],
    origin: Annotated[
        str,
        Choice(
            "Around",
            "task_arithmetic: the base. cart: the mean of the experts. tsv_m: the base, with TSV-M's decorrelated components.",
            ("task_arithmetic", "cart", "tsv_m"),
        ),
    ] = "task_arithmetic",
    start: Annotated[
        float | None,
        Number(
            "Start",
            "The coefficients at the start.",
            0,
            100,
            0.05,
            soft_high=3,
            auto="task_arithmetic: 0.3, cart: 2.3, tsv_m: 1",
        ),
    ] = None,
    share: Annotated[
        float | None,
        Number(
            "Kept at the start",
            "Share of the components of each task that is kept at the start.",
            0,
            1,
            0.01,
            auto="cart: 0.16; else all",
        ),
    ] = None,
    iterations: Annotated[int, STEPS] = 120,
    learning_rate: Annotated[float, RATE] = 1e-2,
    batch: Annotated[int, BATCH] = 16,
    images: Annotated[str, SPLIT] = "val",
    seed: Annotated[int, SEED] = 0,
) -> Tensor:
    """The merged delta with hard masks, after the last step; the authors report the best of many by test accuracy.

    They take 10,000 steps at a rate of 0.001. A logit starts 0.1 away from the threshold, so that fewer than 0.1 / rate
    steps change no mask.
    At ten times the rate the demo's validation accuracy goes from 66.1 % to 70.4, 71.4 and 71.7 % after 30, 60 and 90 steps (150
    images a task).
    """
    return prepared[layer.name].to(layer.dtype)
