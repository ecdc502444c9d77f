"""Adapters of packed experts: PEFT's ``target_parameters``, whose factors do not name the parameter that they adapt.

PEFT wraps a module once for every parameter, the first declared innermost: ``experts.base_layer.lora_A`` is that of
``gate_up_proj``, ``experts.lora_A`` that of ``down_proj``. A parameter of E experts has one pair of factors for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dcmerge.checkpoints.adapted import OfExpert
from dcmerge.checkpoints.adapter_settings import AdapterSettings
from dcmerge.checkpoints.base import TensorFile, TensorInfo
from dcmerge.checkpoints.packed import Layout, in_order, layout_in, layout_of, unpacked_infos
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError

_WRAPPED = ".base_layer"
_FIRST = ".experts.0."
_BOTH, _HALF, _DOWN = "gate_up_proj", "gate_proj", "down_proj"


@dataclass(frozen=True)
class Pair:
    """The factors of one parameter: ``module`` and ``parameter`` name it, ``key_a`` and ``key_b`` are names in the file."""

    module: str
    parameter: str
    key_a: str
    key_b: str
    saved: tuple[str, str]

    @property
    def name(self) -> str:
        return f"{self.module}.{self.parameter}"


@dataclass(frozen=True)
class Seen:
    """How a base holds one expert: where gate and up lie, and the shapes of gate (or both) and down."""

    layout: Layout
    gate: tuple[int, ...] | None
    down: tuple[int, ...] | None


def named(module: str, settings: AdapterSettings, modules: Iterable[str]) -> tuple[str, str] | None:
    """Module and parameter that a pair of factors adapts; None where it adapts a layer's weight.

    Raises InputError where the order of a module's parameters is not known, or where more pairs than parameters are there.
    """
    if not settings.parameters:
        return None
    whole, inside = _unwrapped(module)
    wanted = settings.parameters_of(whole)
    if not wanted:
        return None
    depth = max(_unwrapped(one)[1] for one in modules if _unwrapped(one)[0] == whole)
    try:
        ordered = in_order(wanted)
    except ValueError as error:
        raise InputError(f"The adapter adapts {error}, of {shown(whole)}: expected those of a mixture's experts.") from None
    if depth + 1 != len(ordered):
        raise InputError(f"Expected factors of {len(ordered)} parameters of {shown(whole)}, got {depth + 1}.")
    return whole, ordered[len(ordered) - 1 - inside]


def _unwrapped(module: str) -> tuple[str, int]:
    """The module's own name, and how many wrappers lie around the one that is meant."""
    count = 0
    while module.endswith(_WRAPPED):
        module, count = module.removesuffix(_WRAPPED), count + 1
    return module, count


def seen_in(infos: Mapping[str, TensorInfo]) -> Seen | None:
    """What a base tells of its experts, packed or apart; None where it has none."""
    known = unpacked_infos(infos)
    shapes = {
        name.split(_FIRST)[1].split(".")[0]: i.shape for name, i in known.items() if _FIRST in name and name.endswith(".weight")
    }
    if not shapes:
        return None
    layout = layout_in(infos) or (Layout(0) if _HALF in shapes else Layout())
    return Seen(layout, shapes.get(_BOTH) or shapes.get(_HALF), shapes.get(_DOWN))


def experts_of(file: TensorFile, settings: AdapterSettings, pairs: list[Pair], seen: Seen | None = None) -> Iterator[OfExpert]:
    """One adapted matrix an expert and projection. ``seen`` is what the base tells; without it the shapes and the settings do.

    Raises InputError for factors whose sizes do not fit the rank.
    """
    turned = {pair.name: _turned(file, settings, pair, seen) for pair in pairs}
    layouts: dict[str, Layout] = {}
    for module in dict.fromkeys(pair.module for pair in pairs):
        own = {pair.parameter: _shape(file, pair, turned[pair.name]) for pair in pairs if pair.module == module}
        layouts[module] = seen.layout if seen else layout_of(own)
    for pair in pairs:
        count, rank = _count(file, settings, pair), settings.rank_of(pair.name)
        shape, scale = _shape(file, pair, turned[pair.name]), settings.scale_of(pair.name)
        if pair.parameter.endswith("bias") or not rank:
            raise InputError(
                f"The adapter {shown(file.path)} adapts {shown(pair.name)}, biases of experts, which is not supported."
            )
        for expert in range(count):
            parts = layouts[pair.module].parts(pair.name, pair.module, pair.parameter, expert, shape)
            for weight, part in parts.items():
                keys = (pair.key_a, pair.key_b)
                yield OfExpert(weight, *keys, scale, False, pair.name, 1, pair.saved, "", "", part, count, turned[pair.name])


def _count(file: TensorFile, settings: AdapterSettings, pair: Pair) -> int:
    """How many experts the factors are of."""
    a, b, rank = file.infos[pair.key_a].shape, file.infos[pair.key_b].shape, settings.rank_of(pair.name)
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or a[0] % rank:
        told = f"factors of rank {rank} for every expert of {shown(pair.name)}"
        raise InputError(f"Expected {told}, got {a} and {b} in {shown(file.path)}.")
    return a[0] // rank


def _shape(file: TensorFile, pair: Pair, turned: bool) -> tuple[int, int]:
    m, n = file.infos[pair.key_b].shape[0], file.infos[pair.key_a].shape[1]
    return (n, m) if turned else (m, n)


def _turned(file: TensorFile, settings: AdapterSettings, pair: Pair, seen: Seen | None) -> bool:
    """Whether the delta is (B A)ᵀ: by the base's shapes, else by what the settings tell."""
    guess = bool(settings.turns_experts)
    own = seen and (seen.down if pair.parameter == _DOWN else seen.gate)
    if not own or len(own) != 2:
        return guess
    wanted = list(own)
    if pair.parameter == _BOTH and seen and seen.layout.axis is not None:
        wanted[seen.layout.axis] *= 2
    fits = [turned for turned in (False, True) if _shape(file, pair, turned) == tuple(wanted)]
    return fits[0] if len(fits) == 1 else guess
