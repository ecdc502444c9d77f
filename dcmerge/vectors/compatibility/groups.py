"""Groups of parameters by what they are for: heads, poolers, positions, tokens. A person may leave each out as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, TensorInfo
from dcmerge.vectors.compatibility.report import classify
from dcmerge.vectors.roles import OTHER, Role, role_of


@dataclass(frozen=True)
class Group:
    """Parameters of one role; ``common`` are those of them that can be merged, as the base and all experts have them so."""

    role: Role
    names: tuple[str, ...]
    common: tuple[str, ...]


def groups_of(base: Checkpoint | None, experts: Mapping[str, Checkpoint]) -> list[Group]:
    """The groups of a set, by its headers alone, in the order of the base; what belongs to no group is in none.

    Of full models the base's parameters count, of adapters those that any of them changes.
    """
    adapters = all(isinstance(one, LoraCheckpoint) for one in experts.values())
    infos: dict[str, TensorInfo] = {}
    for one in experts.values() if adapters or base is None else (base,):
        infos |= {name: info for name, info in one.infos.items() if name not in infos}
    names: dict[Role, list[str]] = {}
    for name, info in infos.items():
        if classify(name, info).mergeable and (role := role_of(name)) is not OTHER:
            names.setdefault(role, []).append(name)
    return [
        Group(role, tuple(own), tuple(name for name in own if _in_all(name, infos[name], experts, adapters=adapters)))
        for role, own in names.items()
    ]


def _in_all(name: str, info: TensorInfo, experts: Mapping[str, Checkpoint], *, adapters: bool) -> bool:
    """Whether every expert has it in this shape; an adapter that does not change it has it as the base does."""
    shapes = [one.infos[name].shape if name in one.infos else None for one in experts.values()]
    return all(shape == info.shape or (adapters and shape is None) for shape in shapes)
