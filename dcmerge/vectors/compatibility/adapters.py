"""What a set of adapters holds beside factors that all fit: whole tensors, parts that the base lacks, another base's name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from dcmerge.checkpoints import Checkpoint, LoraCheckpoint, read_json
from dcmerge.checkpoints.dialects import KOHYA
from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError, listed
from dcmerge.vectors.adapters import base_name_of
from dcmerge.vectors.compatibility.common import Lacking, extras, told_group
from dcmerge.vectors.compatibility.report import IN_FULL, Finding, Kind, Parameter
from dcmerge.vectors.roles import role_of


def in_full(
    parameters: tuple[Parameter, ...], base: Checkpoint | None, adapters: Mapping[str, LoraCheckpoint]
) -> tuple[tuple[Parameter, ...], list[Finding]]:
    """Tensors that were trained in full beside the factors: averaged where the base has them too, else left out."""
    names = [p.name for p in parameters if any(p.name in adapter.whole for adapter in adapters.values())]
    if base is None or not names:
        return parameters, []
    own = {task: adapter.selected(names) for task, adapter in adapters.items()}
    lost = [name for name in names if name not in base.infos]
    other = {name: _of_another_shape(name, base, own) for name in names if name not in lost}
    groups: dict[tuple, list[str]] = {}
    for name, tasks in other.items():
        if tasks:
            groups.setdefault((role_of(name), tasks), []).append(name)
    findings = [*extras(base.infos, own, {})]
    for (role, tasks), members in groups.items():
        lacking = tuple(task for task, one in own.items() if not any(name in one.infos for name in members))
        findings.append(replace(told_group(Lacking(role, tuple(members), (), tasks), base, _without(own, lacking)), task=None))
    out = {*lost, *(name for name, tasks in other.items() if tasks)}
    merged = [name for name in names if name not in out]
    if merged:
        text = f"{len(merged)} tensors were trained in full beside the factors, and are averaged: {listed(merged)}"
        findings.append(Finding("note", "in full", text, None, tuple(merged)))
    return tuple(_kind_of(p, out, merged) for p in parameters), findings


def _of_another_shape(name: str, base: Checkpoint, own: Mapping[str, Checkpoint]) -> tuple[str, ...]:
    return tuple(task for task, one in own.items() if name in one.infos and one.infos[name].shape != base.infos[name].shape)


def _without(own: Mapping[str, Checkpoint], tasks: tuple[str, ...]) -> dict[str, Checkpoint]:
    return {task: one for task, one in own.items() if task not in tasks}


def _kind_of(parameter: Parameter, out: set[str], merged: list[str]) -> Parameter:
    if parameter.name in out:
        return replace(parameter, kind=Kind.SKIPPED, reason="trained in full beside the factors, and not in the base so")
    if parameter.name in merged and parameter.mergeable:
        return replace(parameter, kind=Kind.VECTOR, reason=IN_FULL)
    return parameter


def lacking_parts(
    parameters: tuple[Parameter, ...], base: Checkpoint | None, adapters: Mapping[str, LoraCheckpoint]
) -> Iterator[Finding]:
    """Parts of an image model's LoRA (its text encoder) that the base does not hold at all: they are left out."""
    if base is None or any(adapter.dialect != KOHYA for adapter in adapters.values()):
        return
    parts: dict[str, list[str]] = {}
    met: set[str] = set()
    for adapter in adapters.values():
        for name, source in adapter.source_names.items():
            part = "_".join(source.split("_")[:2])
            parts.setdefault(part, []).append(name)
            met |= {part} if name in base.infos else set()
    for part, names in parts.items():
        if part not in met and met:
            names = list(dict.fromkeys(names))
            text = f"{len(names)} adapted weights of {shown(part)}_* are left out: the base holds nothing of that part"
            yield Finding("warning", "part", text, None, tuple(names))


def other_base(base: Checkpoint | None, adapters: Mapping[str, LoraCheckpoint]) -> Iterator[Finding]:
    """A note where the base here has another name than the one that the adapters' settings name."""
    names = {name.lower(): name for adapter in adapters.values() if (name := base_name_of(adapter))}
    if base is None or len(names) != 1:
        return
    here = {base.path.name.lower(), base.path.stem.lower(), *_said(base)}
    if not here & set(names):
        told = shown(next(iter(names.values())))
        text = (
            f"the adapters say that they were trained on {told}; the base here is {shown(base.path.name)}: make sure they are one"
        )
        yield Finding("note", "other base", text)


def _said(base: Checkpoint) -> set[str]:
    """What the base's own settings call it."""
    path = base.path / "config.json"
    if not path.is_file():
        return set()
    try:
        said = read_json(path).get("_name_or_path")
    except InputError:
        return set()
    return {said.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()} if isinstance(said, str) and said else set()
