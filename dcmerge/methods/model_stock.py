"""Model Stock: as far from the base as the experts' angles allow."""

from __future__ import annotations

from torch import Tensor

from dcmerge.alignment import cosine
from dcmerge.layers import Layer
from dcmerge.methods.registry import merging_method


@merging_method(
    "model_stock",
    title="Model Stock",
    idea="The mean of the experts, drawn back to the base the more, the less their task vectors agree. Made for experts of one "
    "task; of different tasks it stays close to the base.",
    formula=r"\tau=t\,\bar\tau,\quad t=\frac{K\cos\theta}{(K-1)\cos\theta+1}\ \text{per parameter}",
    source="Jang et al. 2024, arXiv 2403.19522",
    everywhere=True,
)
def model_stock(layer: Layer) -> Tensor:
    """t · mean(D_t) with cos θ the mean pairwise cosine of the deltas, not below 0 (mergekit averages cosines likewise)."""
    D = layer.dense_deltas()
    K = len(D)
    pairs = [cosine(D[i], D[j]) for i in range(K) for j in range(i)]
    c = max(0.0, sum(pairs) / len(pairs)) if pairs else 1.0
    return K * c / ((K - 1) * c + 1) * D.mean(dim=0)
