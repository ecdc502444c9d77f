"""A model's own temperature: the logit scale that cosines are multiplied by before the softmax, and where it is known from.

Accuracies do not depend on it. Confidences, entropies and cross-entropies do, and with them every method that descends one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dcmerge.checkpoints import Checkpoint
from dcmerge.errors import InputError

#: What the scale is called in weights (its logarithm) and in an encoder's configuration (the number itself).
NAME = "logit_scale"
#: Outside of this no softmax is of use; CLIP's training allows 1 to 100.
_LEAST, _MOST = 1e-3, 1e6
#: Rows of a head whose lengths differ by more, relatively, were not multiplied by one scale.
_EQUAL = 1e-3


@dataclass(frozen=True)
class LogitScale:
    """p = softmax(value · cosines); ``origin`` says who says so."""

    value: float
    origin: str

    @property
    def text(self) -> str:
        """In words: "20, from the zoo's configuration"."""
        return f"{self.value:.4g}, {self.origin}"


#: CLIP's own, the largest that its training allows: where nothing says otherwise.
ASSUMED = LogitScale(100.0, "assumed: CLIP's, since no file of these models says which")


def scale_in_file(checkpoint: Checkpoint | None, whose: str) -> LogitScale | None:
    """The learned scale of a whole CLIP, open_clip's or Hugging Face's: both keep its logarithm as ``logit_scale``, of shape ()
    or (1,). None where the file has none; raises InputError for a tensor that is no such number."""
    if checkpoint is None:
        return None
    name = next((name for name in checkpoint.infos if name.rpartition(".")[2] == NAME), None)
    return None if name is None else scale_in({name: checkpoint.tensor(name)}, whose)


def scale_in(weights: Mapping[str, Tensor], whose: str) -> LogitScale | None:
    """The same of tensors that were read."""
    logarithm = next((value for name, value in weights.items() if name.rpartition(".")[2] == NAME), None)
    if logarithm is None:
        return None
    if logarithm.numel() != 1 or not logarithm.is_floating_point():
        raise InputError(f"{NAME}: expected one number, its logarithm, in {whose}, got a tensor of {list(logarithm.shape)}")
    found = logarithm.double().item()
    return LogitScale(_checked(math.exp(found) if found < 100 else math.inf, f"exp {found:g}"), f"learned, in {whose}")


def scale_in_config(config: Mapping[str, Any]) -> LogitScale | None:
    """The scale that an encoder's configuration states as a plain number under ``logit_scale``; None where it does not.

    What open_clip calls ``init_logit_scale`` and Hugging Face ``logit_scale_init_value`` is where training begins, 14.3 for CLIP,
    which ends at 100: it is not taken for the model's own.
    """
    value = config.get(NAME)
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return LogitScale(_checked(float(value) if number else math.nan, repr(value)), "from the encoder's configuration")


def length_of_rows(head: Tensor) -> float | None:
    """What a head's rows (classes, d) were multiplied by, where they have one length that is not 1.

    The task vectors' code saves heads so, with CLIP's logit scale.
    """
    lengths = head.double().norm(dim=-1)
    mean = lengths.mean().item()
    one_length = mean > 0 and (lengths / mean - 1).abs().max().item() < _EQUAL
    return mean if one_length and abs(mean - 1) > _EQUAL else None


def scale_of_heads(lengths: Mapping[str, float | None]) -> LogitScale | None:
    """The scale by which the heads of all tasks were multiplied; None where they are of unit length or differ."""
    found = [length for length in lengths.values() if length is not None]
    if not found or len(found) < len(lengths) or max(found) > min(found) * (1 + _EQUAL):
        return None
    value = sum(found) / len(found)
    return LogitScale(value, "the length of the heads' rows") if _LEAST <= value <= _MOST else None


def _checked(value: float, got: str) -> float:
    if not _LEAST <= value <= _MOST:
        raise InputError(f"{NAME}: expected a scale from {_LEAST:g} to {_MOST:g}, got {got}")
    return value
