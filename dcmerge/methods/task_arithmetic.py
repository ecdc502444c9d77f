"""Task Arithmetic."""

from __future__ import annotations

from dcmerge.methods.registry import merging_method
from dcmerge.methods.usual_scales import growing_for_few
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.task_vectors import Delta


@merging_method(
    "task_arithmetic",
    title="Task Arithmetic",
    idea="The sum of the task vectors, scaled by one number. With α = 1/T it is weight averaging.",
    formula=r"\tau = \sum_t \tau_t",
    source="Ilharco et al. 2023, arXiv 2212.04089",
    everywhere=True,
    usual_scale=0.3,
    usual_scale_of=growing_for_few(0.3),
    keeps_factors=True,
    by_rows=True,
    separable=True,
)
def task_arithmetic(layer: Layer) -> Delta:
    """Σ D_t, for every kind of parameter."""
    return layer.sum()
