"""Weights of a few bits, which nobody can subtract from each other: recognised by name and dtype, and refused."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dcmerge.checkpoints.base import Checkpoint, TensorInfo
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError

#: What the quantising libraries store beside or instead of a weight. The first that fits a name is told.
_NAMES = (
    (
        re.compile(r"(.*\.)?[^.]+\.(quant_state\.bitsandbytes__\w+|absmax|quant_map|nested_absmax|nested_quant_map)"),
        "4-bit weights of bitsandbytes",
    ),
    (re.compile(r"(.*\.)?(SCB|weight_format)"), "8-bit weights of bitsandbytes"),
    (re.compile(r"(.*\.)?(weight_packed|weight_zero_point)"), "packed weights of compressed-tensors"),
)
_PACKED = re.compile(r"(?P<module>(.*\.)?)qweight")
_SCALES = re.compile(r"(.*\.)?(weight_scale|weight_scale_inv|weight_scales)")
#: All of these at once: most names of plain models fit none.
_ANY = re.compile("|".join(form.pattern for form in (*(form for form, _ in _NAMES), _PACKED, _SCALES)))


def refuse_quantised(checkpoint: Checkpoint) -> None:
    """Raises InputError that names the tensor and its kind, where weights are fp8, integers, or packed."""
    found = quantised(checkpoint.infos)
    if found:
        name, what = found
        raise InputError(
            f"{shown(checkpoint.path)} holds {what} ({shown(name)}), whose differences mean nothing: expected "
            "the model in float32, bfloat16 or float16, as it was before it was quantised."
        )


def quantised(infos: Mapping[str, TensorInfo]) -> tuple[str, str] | None:
    """The tensor that tells most of quantised weights, and what they are; None of plain ones."""
    telling = {name: info for name, info in infos.items() if _ANY.fullmatch(name)}
    asked = ((_fp8, infos), (_named, telling), (_integers, infos), (_scales, telling))
    told = ((name, kind(name, info, infos)) for kind, some in asked for name, info in some.items())
    return next(((name, what) for name, what in told if what), None)


def _fp8(name: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> str | None:
    dtype = str(info.dtype).removeprefix("torch.")
    return f"fp{dtype[5]} weights ({dtype})" if dtype.startswith(("float8", "float4")) else None


def _named(name: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> str | None:
    if packed := _PACKED.fullmatch(name):
        # Both have the same three tensors; GPTQ adds the order of its groups.
        return "GPTQ weights" if f"{packed['module']}g_idx" in infos else "AWQ or GPTQ weights"
    return next((what for form, what in _NAMES if form.fullmatch(name)), None)


def _integers(name: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> str | None:
    plain = info.dtype.is_floating_point or info.dtype.is_complex or len(info.shape) < 2
    return None if plain or not name.endswith("weight") else f"weights of integers ({str(info.dtype).removeprefix('torch.')})"


def _scales(name: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> str | None:
    return "the scales of quantised weights" if _SCALES.fullmatch(name) else None
