"""How the names of a set's files meet: experts under their base's names, adapters alone under common ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, TensorInfo, aligned, common_prefix
from dcmerge.checkpoints.dialects import KOHYA
from dcmerge.checkpoints.names import flat_names
from dcmerge.checkpoints.packed import unpacked_infos
from dcmerge.vectors.adapters import as_matrix
from dcmerge.vectors.ties import stand_ins


def on_base(base: Checkpoint, expert: Checkpoint) -> Checkpoint:
    """An expert under its base's names; an adapter adapts packed experts one by one."""
    if isinstance(expert, LoraCheckpoint):
        return _under_names_of(unpacked_infos(base.infos), expert.on_experts_of(base.infos))
    return _under_names_of(base.infos, expert)


def under_common_names(adapters: dict[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Adapters without a base: a prefix goes only where all have it, then each one meets those before it."""
    prefix = common_prefix(source for adapter in adapters.values() for source in adapter.source_names.values())
    found: dict[str, Checkpoint] = {}
    met: dict[str, TensorInfo] = {}
    for task, adapter in adapters.items():
        one = adapter.renamed({name: source.removeprefix(prefix) for name, source in adapter.source_names.items()})
        found[task] = _under_names_of(met, one) if met else one
        met |= found[task].infos
    return found


def _under_names_of(known: Mapping[str, TensorInfo], expert: Checkpoint) -> Checkpoint:
    """The expert under known names, where it was trained on a part of that model or saved behind another prefix."""
    shapes, base_shapes = ({name: info.shape for name, info in infos.items()} for infos in (expert.infos, known))
    if isinstance(expert, LoraCheckpoint):
        base_shapes = {name: as_matrix(shape) for name, shape in base_shapes.items()}
        if expert.dialect == KOHYA:
            return expert.renamed(flat_names(shapes, base_shapes))
    found = aligned(shapes, base_shapes, expert.trained_class)
    names = found.names | stand_ins({found.names[name]: shape for name, shape in shapes.items()}, base_shapes)
    names = {name: names.get(found.names[name], found.names[name]) for name in shapes}
    changed = any(name != new for name, new in names.items())
    one = expert.renamed(names) if changed and len(set(names.values())) == len(names) else expert
    if found.rivals:
        one = copy.copy(one)
        one.rivals = found.rivals
    return one
