"""Weight averaging."""

from __future__ import annotations

from dcmerge.methods.registry import merging_method
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta


@merging_method(
    "average",
    title="Weight averaging",
    idea="The mean of the experts' weights. Safe and weak: every task vector shrinks to 1/T of its length.",
    formula=r"\tau = \frac{1}{T}\sum_t \tau_t",
    source="Wortsman et al. 2022, arXiv 2203.05482",
    everywhere=True,
    fixed_scale="averaging is α = 1",
    keeps_factors=True,
    by_rows=True,
    separable=True,
)
def average(layer: Layer) -> Delta:
    """(1/T) Σ D_t, for every kind of parameter."""
    return layer.mean()
