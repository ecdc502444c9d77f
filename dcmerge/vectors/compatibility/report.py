"""What a report on a set of checkpoints consists of: its parameters, and findings about them."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from dcmerge.checkpoints import TensorInfo

#: Buffers that are no parameters: masks (old open_clip: -inf above the diagonal, and -inf minus -inf is NaN), tables of
#: rotary and sinusoidal positions, counters.
_BUFFERS = re.compile(
    r"(.*\.)?(attn_mask|causal_mask|masked_bias|position_ids|token_type_ids|(original_)?inv_freq|cos_cached|sin_cached|freqs_cis"
    r"|freqs_(cos|sin)|relative_position_index|relative_coords_table|num_batches_tracked|embed_positions\.(weights|_float_tensor)"
    r"|rope\.freqs|pos_encoder\.pe)"
)
#: GPT-2's and GPT-NeoX's mask of the future, (1, 1, n, n), whose name is that of a bias.
_MASKS = re.compile(r"(.*\.)?(attn|attention|crossattention)\.bias")


#: Of a tensor beside an adapter's factors: methods of factors do not see it.
IN_FULL = "trained in full beside the factors, averaged"
#: Findings of what is not merged.
LEFT_OUT = ("left out", "extra", "vocabulary", "tied", "tower")


#: Entries of a part: so many of each expert, with what is made of them, fit into the cache of a core.
PART_ENTRIES = 1 << 18


def row_spans(shape: tuple[int, ...]) -> tuple[tuple[int, int] | None, ...]:
    """The rows of each part of a tensor that is worked on in parts, from the top; (None,) for one that is small, or a vector."""
    entries = math.prod(shape)
    if len(shape) < 2 or entries <= PART_ENTRIES:
        return (None,)
    step = max(1, PART_ENTRIES * shape[0] // entries)
    return tuple((start, min(start + step, shape[0])) for start in range(0, shape[0], step))


class Kind(StrEnum):
    """What a parameter is to a merging method."""

    MATRIX = "matrix"
    VECTOR = "vector"
    CONVOLUTION = "convolution"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Parameter:
    """One parameter of the set, how it is treated, and the reason where that is not obvious."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    reason: str = ""

    @property
    def mergeable(self) -> bool:
        return self.kind is not Kind.SKIPPED

    @property
    def sides(self) -> tuple[int, int]:
        """(m, n) of a matrix."""
        m, n = self.shape
        return m, n

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Finding:
    """Something a user should know of the set. An "error" forbids merging, a "warning" and a "note" do not."""

    level: str
    what: str
    text: str
    task: str | None = None
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What fits, what differs, what is skipped and why. Norms are ‖τ‖ of each expert and ‖θ0‖ over the same parameters.

    ``copies``: name -> the tensor that it is a copy of, for what is merged once and written under both names.
    """

    tasks: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    findings: tuple[Finding, ...]
    delta_norms: dict[str, float] = field(default_factory=dict)
    base_norm: float | None = None
    copies: dict[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is not merged and why, a sentence for each group: for the recipe and the card."""
        return tuple(f.text for f in self.findings if f.what in LEFT_OUT)

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "warning")

    def counts(self) -> dict[str, int]:
        """Number of parameters of each kind."""
        return {kind.value: sum(p.kind is kind for p in self.parameters) for kind in Kind}

    def to_dict(self) -> dict:
        return asdict(self) | {"counts": self.counts()}


def classify(name: str, info: TensorInfo) -> Parameter:
    """Matrix (2-D), vector (0-D, 1-D), convolution (3-D and more), or skipped (not a floating-point tensor).

    The text projection counts as a vector, that is, it is averaged: DC-Merge's and TSV-M's published code excludes every
    name that holds ``text_projection`` from the singular-value route.
    """
    if not info.dtype.is_floating_point:
        return Parameter(
            name, info.shape, Kind.SKIPPED, f"buffer of {str(info.dtype).removeprefix('torch.')}, kept from the base"
        )
    if _BUFFERS.fullmatch(name) or (_MASKS.fullmatch(name) and len(info.shape) == 4):
        return Parameter(name, info.shape, Kind.SKIPPED, "a buffer, no parameter, kept from the base")
    if len(info.shape) == 2:
        if "text_projection" in name:
            return Parameter(name, info.shape, Kind.VECTOR, "text projection, averaged as in the authors' code")
        return Parameter(name, info.shape, Kind.MATRIX)
    return Parameter(name, info.shape, Kind.VECTOR if len(info.shape) < 2 else Kind.CONVOLUTION)
