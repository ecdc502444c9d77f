"""Parameters and linear algebra that methods with calibration images share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from dcmerge.evaluation.calibration import Calibration, LayerInputs
from dcmerge.methods.declare import Choice, Number
from dcmerge.vectors.layers import Layer

SPLIT = Choice(
    "Images",
    "val: the validation images. test: the unlabeled test images, which the papers of test-time methods "
    "use; α and everything else is still chosen on validation.",
    ("val", "test"),
)
EXEMPLARS = Number("Exemplars", "Unlabeled images a task, drawn at random.", 1, 100000, 1, integer=True, soft_high=300)
SEED = Number("Seed", "Which images are drawn, and in which order.", 0, 2**31 - 1, 1, integer=True, soft_high=100)

Inputs = Mapping[str, LayerInputs]


def inputs_of_experts(
    layers: Sequence[Layer], *, calibration: Calibration, exemplars: int, images: str, seed: int, **_: object
) -> Inputs:
    """What each expert's layers see on its own task's images."""
    return calibration.inputs_of_experts(exemplars, images, seed)


def is_transposed(name: str) -> bool:
    """open_clip's final projection is stored as (d_in, d_out), every other weight as (d_out, d_in)."""
    return name.endswith("visual.proj") or name == "text_projection"


def as_linear(name: str, D: Tensor) -> Tensor:
    """Weights (..., d_out, *d_in) of a linear layer or patch embedding as matrices (..., d_out, d_in), one row an output."""
    if is_transposed(name):
        return D.transpose(-2, -1)
    return D.flatten(-3) if name.endswith("conv1.weight") else D


def from_linear(name: str, merged: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``as_linear`` undone for one matrix."""
    return (merged.T if is_transposed(name) else merged).reshape(shape)
