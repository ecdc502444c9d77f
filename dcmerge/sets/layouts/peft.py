"""PEFT adapter folders: DC-Merge's <task>/, KnOTS-ViT-B-32_lora_R16_<task>, MM-MergeBench's LLaVA_7B_lora_r16_<Task>,
FusionBench's flan-t5-base_glue-<task>_lora-16.

Adapters do without a base. It is taken where one lies beside them (called base, or as their settings name it) or where
``base_model_name_or_path`` is a path on this machine. Heads: <task>_head.pt.
"""

from __future__ import annotations

import re
from pathlib import Path

from dcmerge.checkpoints.paths import shown
from dcmerge.sets.layouts.encoders import encoder_in_name, encoder_of
from dcmerge.sets.layouts.found import FoundSet
from dcmerge.sets.layouts.units import Unit
from dcmerge.sets.layouts.view import View, by_task, grouped, pickled, unreadable

NAME = re.compile(r"(?P<model>.+?)_lora_[rR](?P<rank>\d+)_(?P<task>.+)")
#: FusionBench's: flan-t5-base_glue-cola_lora-16.
_FUSION_BENCH = re.compile(r"(?P<model>.+?)_(?:glue-)?(?P<task>[^_]+)_lora-(?P<rank>\d+)")
SOURCE = "base_model_name_or_path"
#: Files beside an adapter's own that we do not read.
BESIDE = {"non_lora_trainables.bin": "fully trained parts of the model"}


def find(view: View) -> list[FoundSet]:
    """One set for each family of adapters in a folder: of one name before the task, made for one base."""
    adapters = [unit for unit in view.units if unit.is_adapter]
    groups = grouped(adapters, lambda unit: (unit.container, _family(unit), _last(source_of(unit))))
    return [_set(view, container, family, units) for (container, family, _), units in groups.items()]


def _family(unit: Unit) -> str:
    found = _parsed(unit)
    return found["model"] if found else ""


def _parsed(unit: Unit) -> re.Match[str] | None:
    return NAME.fullmatch(unit.name) or _FUSION_BENCH.fullmatch(unit.name)


def source_of(unit: Unit) -> str:
    """The base that an adapter's settings name; empty where they name none, or something that is no text."""
    text = unit.config.get(SOURCE)
    return text if isinstance(text, str) else ""


def _last(text: str) -> str:
    """The last part of a base's name or path, which differs from machine to machine before it."""
    return text.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _set(view: View, container: Path, family: str, units: list[Unit]) -> FoundSet:
    tasks = by_task((found["task"] if (found := _parsed(unit)) else unit.name, unit) for unit in units)
    base, notes = _base(view, container, units)
    source = next((text for unit in units if (text := _last(source_of(unit)))), "")
    shapes, config = (base.peek.shapes, base.config) if base else ({}, {})
    names = (encoder_in_name(name, shapes) for name in (family, source, container.name))
    told = encoder_of(shapes, config) or next(filter(None, names), None)
    heads, head_notes = view.heads_for(tasks, container, (told or family).removesuffix("-quickgelu"))
    known = family or source
    title = f"LoRA adapters of {shown(known)}" if known else "LoRA adapters"
    every = (*notes, *head_notes, *unreadable(units), *_partial(units))
    return FoundSet(
        "peft", title, container, base and base.path, tasks, heads, told, (), every, pickled(units), () if base else notes
    )


def _base(view: View, container: Path, units: list[Unit]) -> tuple[Unit | None, tuple[str, ...]]:
    if found := view.base_in(container):
        return found, ()
    texts = {source_of(unit) for unit in units} - {""}
    paths = {path for text in texts if (path := view.path_named(text, container))}
    if len(paths) == 1:
        path = paths.pop()
        return next((u for u in view.every if u.path == path), Unit(path, path.stem, path.parent)), ()
    if paths:
        return None, ("the adapters name different bases: choose the one that you mean, or merge them without one",)
    named = f"they were made for {', '.join(sorted(map(shown, texts)))}; " if texts else ""
    return None, (f"{named}without a base only deltas can be written",)


def _partial(units: list[Unit]) -> tuple[str, ...]:
    notes = []
    for name, what in BESIDE.items():
        having = [unit.name for unit in units if (unit.path / name).is_file()]
        if having:
            notes.append(f"{len(having)} of {len(units)} adapters come with {what} ({name}), which are not merged")
    return tuple(notes)
