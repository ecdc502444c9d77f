"""Model Stock: as far from the base as the experts' angles allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from torch import Tensor

from dcmerge.methods.declare import Flag
from dcmerge.methods.registry import merging_method
from dcmerge.methods.weights_of_experts import cosine_of, gram_of_deltas
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta

#: So close to its pole t has no meaning.
_POLE = 1e-6


def _survey(layers: Sequence[Layer], *, limit: bool) -> dict[str, Tensor]:
    return gram_of_deltas(layers)


@merging_method(
    "model_stock",
    title="Model Stock",
    idea="The mean of the experts, pulled back towards the base where their task vectors disagree. Made for experts of one "
    "task; of different tasks it stays close to the base.",
    formula=r"\tau=t\,\bar\tau,\quad t=\frac{K\cos\theta}{(K-1)\cos\theta+1}\ \text{per parameter}",
    source="Jang et al. 2024, arXiv 2403.19522",
    everywhere=True,
    keeps_factors=True,
    by_rows=True,
    prepare=_survey,
)
def model_stock(
    layer: Layer,
    *,
    prepared: Mapping[str, Tensor],
    limit: Annotated[
        bool, Flag("Not past the base", "Off: where the deltas oppose each other, t may be negative, as in mergekit.")
    ] = True,
) -> Delta:
    """t · mean(D_t) with cos θ the mean pairwise cosine of the deltas, not below 0 with ``limit``. mergekit averages cosines too.

    Without the limit t is 0 at its pole, (K−1) cos θ = −1. Of adapters the cosines come from the factors, and the mean stays
    factors.
    """
    K, G = len(layer.tasks), prepared[layer.name]
    pairs = [cosine_of(G, i, j) for i in range(K) for j in range(i)]
    c = sum(pairs) / len(pairs) if pairs else 1.0
    c = max(0.0, c) if limit else c
    pole = abs((K - 1) * c + 1) < _POLE
    return (layer.sum() * (1 / K)) * (0.0 if pole else K * c / ((K - 1) * c + 1))
