"""Packed experts: one tensor that holds a matrix of every expert of a mixture, seen as one matrix an expert and projection.

transformers 5 keeps a mixture's experts as ``experts.gate_up_proj`` (E, 2f, h) and ``experts.down_proj`` (E, h, f), and writes
some models so; gpt-oss and Llama 4 have them transposed, (E, h, 2f) and (E, f, h). To a method they are the same matrices as in
files that hold every expert apart, under the names that those have: ``experts.3.gate_proj.weight``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dcmerge.checkpoints.base import TensorInfo

Shape = tuple[int, ...]
_PACKED = re.compile(r"(?P<module>(?:.*\.)?experts)\.(?P<which>[^.]+?)(?:\.weight|(?P<bias>_bias))?")
#: Granite's names in the file.
_GRANITE = re.compile(r"(?P<module>(?:.*\.)?block_sparse_moe)\.(?P<which>input_linear|output_linear)\.weight")
_GATE_UP, _DOWN = "gate_up_proj", "down_proj"
_CALLED = {
    "input_linear": _GATE_UP,
    "output_linear": _DOWN,
    "w13_weight": _GATE_UP,
    "w2_weight": _DOWN,
    "w13": _GATE_UP,
    "w2": _DOWN,
}
_HALVES = ("gate_proj", "up_proj")
#: In the order in which a module declares them.
_ORDER = (_GATE_UP, *_HALVES, _DOWN)


@dataclass(frozen=True)
class Part:
    """Where a tensor of a view lies in a stored one: ``start:stop:step`` along ``axis``, of a packed one within an ``expert``."""

    name: str
    start: int
    stop: int
    expert: int | None = None
    axis: int = 0
    step: int = 1

    @property
    def count(self) -> int:
        """How many rows (or, with ``axis`` 1, columns) it has."""
        return len(range(self.start, self.stop, self.step))

    @property
    def index(self) -> tuple[slice, ...]:
        """As it is taken out of one expert's matrix or vector."""
        return (*[slice(None)] * self.axis, slice(self.start, self.stop, self.step))


@dataclass(frozen=True)
class Layout:
    """How gate and up lie in an expert's ``gate_up_proj``: along ``axis``, every ``step``-th; as one where ``axis`` is None."""

    axis: int | None = None
    step: int = 1

    @classmethod
    def of(cls, gate_up: Shape, down: Shape, *, alternating: bool = False) -> Layout:
        """From one expert's shapes: (2f, h) and (h, f), or (h, 2f) and (f, h)."""
        if gate_up[0] == 2 * down[1] and gate_up[1] == down[0]:
            return cls(0)
        if gate_up[1] == 2 * down[0] and gate_up[0] == down[1]:
            return cls(1, 2 if alternating else 1)
        return cls()

    def parts(self, stored: str, module: str, which: str, expert: int, shape: Shape, *, bias: bool = False) -> dict[str, Part]:
        """Name in the view -> its place, of one expert's matrix (or bias) of this shape."""
        begins, ends = f"{module}.{expert}.", ".bias" if bias else ".weight"
        axis = 0 if bias else self.axis
        if which != _GATE_UP or self.axis is None or axis is None or shape[axis] % 2:
            return {f"{begins}{which}{ends}": Part(stored, 0, shape[0], expert)}
        size, found = shape[axis], {}
        for place, half in enumerate(_HALVES):
            first, last = (place, size) if self.step == 2 else (place * size // 2, (place + 1) * size // 2)
            found[f"{begins}{half}{ends}"] = Part(stored, first, last, expert, axis, self.step)
        return found


def unpacked(infos: Mapping[str, TensorInfo]) -> dict[str, dict[str, Part]]:
    """Packed tensor -> name in the view -> its place; empty where no tensor is packed. Names that are taken stay packed."""
    packed = {name: known for name, info in infos.items() if (known := _known(name, info, infos))}
    layouts = _layouts(packed, infos)
    found: dict[str, dict[str, Part]] = {}
    for name, (module, which, bias) in packed.items():
        shape, parts = infos[name].shape, {}
        for expert in range(shape[0]):
            parts |= layouts[module].parts(name, module, which, expert, shape[1:], bias=bias)
        if not any(one in infos for one in parts):
            found[name] = parts
    return found


def unpacked_infos(infos: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Names, shapes and dtypes of the view."""
    made, found = unpacked(infos), {}
    for name, info in infos.items():
        found |= {view: part_info(info, part) for view, part in made[name].items()} if name in made else {name: info}
    return found


def part_info(info: TensorInfo, part: Part) -> TensorInfo:
    """Of one part of a packed tensor."""
    shape = list(info.shape[1:])
    shape[part.axis] = part.count
    return TensorInfo(tuple(shape), info.dtype)


def layout_in(infos: Mapping[str, TensorInfo]) -> Layout | None:
    """How the experts of a file lie, from its first packed gate and up; None where it has none packed."""
    for parts in unpacked(infos).values():
        first = next(iter(parts.values()))
        names = {name.split(".")[-2] for name in parts}
        if names & {*_HALVES} and len(names) == 2:
            return Layout(first.axis, first.step)
        if names == {_GATE_UP}:
            return Layout()
    return None


def _known(name: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> tuple[str, str, bool] | None:
    """Module, projection, and whether it is a bias; None for a tensor that is not packed."""
    granite = _GRANITE.fullmatch(name)
    match = granite or _PACKED.fullmatch(name)
    if match is None or not info.dtype.is_floating_point or 0 in info.shape:
        return None
    bias = granite is None and bool(match["bias"])
    whole = infos.get(f"{match['module']}.{match['which']}")
    if len(info.shape) != 3 and not (bias and len(info.shape) == 2 and whole and len(whole.shape) == 3):
        return None
    module = f"{match['module']}.experts" if granite else match["module"]
    return module, _CALLED.get(match["which"], match["which"]), bias


def _layouts(packed: Mapping[str, tuple[str, str, bool]], infos: Mapping[str, TensorInfo]) -> dict[str, Layout]:
    """How gate and up lie, by module."""
    shapes: dict[str, dict[str, Shape]] = {}
    biased: set[str] = set()
    for name, (module, which, bias) in packed.items():
        own = shapes.setdefault(module, {})
        if bias:
            biased.add(module)
        else:
            own[which] = infos[name].shape[1:]
    # gpt-oss, which alone has biases here, stores gate and up in turns.
    return {
        module: Layout.of(own[_GATE_UP], own[_DOWN], alternating=module in biased)
        if {_GATE_UP, _DOWN} <= own.keys()
        else Layout()
        for module, own in shapes.items()
    }


def in_order(parameters: Iterable[str]) -> list[str]:
    """Parameters of one module as it declares them; raises ValueError where several have names of unknown order."""
    found = sorted(parameters, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    if sum(name not in _ORDER for name in found) > 1:
        raise ValueError(f"parameters of unknown order, {', '.join(found)}")
    return found


def layout_of(shapes: Mapping[str, Shape]) -> Layout:
    """How gate and up lie, by the shapes of one expert's projections; as one where they do not tell."""
    return Layout.of(shapes[_GATE_UP], shapes[_DOWN]) if {_GATE_UP, _DOWN} <= shapes.keys() else Layout()
