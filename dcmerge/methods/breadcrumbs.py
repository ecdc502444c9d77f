"""Model Breadcrumbs: leave out the largest and the smallest entries of each task vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Tensor

from dcmerge.checkpoints import dense, total
from dcmerge.methods.declare import Choice, Number
from dcmerge.methods.registry import merging_method
from dcmerge.methods.usual_scales import growing_for_few
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.selection import Cut, cuts

#: What is kept by default in either form.
DENSITY = {"published": 0.14, "mergekit": 0.9}


def _survey(layers: Sequence[Layer], *, form: str, density: float | None, gamma: float) -> dict[str, list[list[Cut]]]:
    """Where mergekit's form cuts each parameter: below its outliers, and below what is kept. Nothing for the published one."""
    if form == "published":
        return {}
    share = DENSITY[form] if density is None else density
    # Both counts rounded down, as mergekit does.
    return cuts(layers, lambda count: [int(gamma * count), int(gamma * count) + int(share * count)])


@merging_method(
    "breadcrumbs",
    title="Model Breadcrumbs",
    idea="Leave out each task vector's few largest entries, which are outliers, and its smallest, which are noise; add the rest.",
    formula=r"\tau=\sum_t m_t\circ\tau_t,\quad m_t=1[\,\eta_t<|\tau_t|\le\beta_t\,]\ \text{per parameter}",
    source="Davari and Belilovsky 2023, arXiv 2312.06795",
    everywhere=True,
    by_rows=True,
    prepare=_survey,
    usual_scale=0.3,
    usual_scale_of=growing_for_few(0.3),
    separable=True,
)
def breadcrumbs(
    layer: Layer,
    *,
    prepared: Mapping[str, Sequence[Sequence[Cut]]],
    form: Annotated[
        str,
        Choice(
            "Form",
            "published: the entries of each row are ranked together, and few stay, as in the paper. mergekit: those of a whole "
            "parameter are, and most stay.",
            tuple(DENSITY),
        ),
    ] = "published",
    density: Annotated[
        float | None,
        Number(
            "Density",
            "Share of the entries that is kept.",
            0,
            1,
            0.01,
            auto=", ".join(f"{kept:g} for {form}" for form, kept in DENSITY.items()),
        ),
    ] = None,
    gamma: Annotated[float, Number("Outliers", "Share of the entries, the largest ones, that is left out.", 0, 1, 0.01)] = 0.01,
) -> Tensor:
    """Σ_t of each delta's entries of rank γ·d .. (γ + density)·d by magnitude, the largest first.

    Ranked are the d entries of a parameter, or with the published form those of each row. The paper leaves out the largest 1 %
    and the smallest 85 % of every row (of a vector, of all its entries).
    """
    deltas = layer.dense_deltas()
    if form == "published":
        share = DENSITY[form] if density is None else density
        return dense(total([_middle_of_rows(delta, share, gamma) for delta in deltas]))
    kept = [_middle(layer.first, delta, *own) for delta, own in zip(deltas, prepared[layer.name], strict=True)]
    return dense(total(kept))


def _middle(first: int, delta: Tensor, outliers: Cut, kept: Cut) -> Tensor:
    """The entries of (a part of) a delta that lie between two ranks; the part begins at the place ``first``."""
    return delta * (kept.kept(delta, first) & ~outliers.kept(delta, first))


def _middle_of_rows(delta: Tensor, density: float, gamma: float) -> Tensor:
    rows = delta.reshape(len(delta) if delta.dim() > 1 else 1, -1)
    first, count = int(gamma * rows.shape[1]), int(density * rows.shape[1])
    kept = rows.abs().argsort(dim=1, descending=True, stable=True)[:, first : first + count]
    return torch.zeros_like(rows).scatter(1, kept, rows.gather(1, kept)).reshape(delta.shape)
