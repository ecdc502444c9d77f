"""FusionBench and MergeBench: folders that are called after their base and their task, beside the base.

FusionBench's CLIP image towers (``clip-vit-base-patch32_<task>``; the base may be a whole CLIP), GPT-2 (``gpt2_<task>``) and
Flan-T5 (``flan-t5-base_glue-<task>``), https://huggingface.co/tanganke; MergeBench's Llama and Gemma (``Llama-3.2-3B_<task>``,
``gemma-2-2b-it_<task>``), https://huggingface.co/MergeBench. As downloaded
(``models--tanganke--clip-vit-base-patch32_mnist/snapshots/<hash>``), with the owner in the name (``tanganke_clip-...``), or in a
folder of the owner's name.
"""

from __future__ import annotations

import re
from os.path import commonpath
from pathlib import Path

from dcmerge.checkpoints.paths import shown
from dcmerge.sets.layouts.encoders import encoder_in_name, encoder_of
from dcmerge.sets.layouts.found import FoundSet
from dcmerge.sets.layouts.units import Unit
from dcmerge.sets.layouts.view import View, by_task, grouped, pickled, strangers, unreadable

_FUSION_BENCH, _MERGE_BENCH = "fusion_bench", "merge_bench"
_MODELS = {
    _FUSION_BENCH: r"clip-vit-(?:base|large|huge|giant)-patch\d+(?:-\d{3})?|gpt2(?:-medium|-large|-xl)?"
    r"|flan-t5-(?:small|base|large|xl|xxl)",
    _MERGE_BENCH: r"Llama-3\.[12]-\d+B(?:-Instruct)?|gemma-2-\d+b(?:-it)?",
}
_TITLES = {_FUSION_BENCH: "FusionBench", _MERGE_BENCH: "MergeBench"}
NAME = re.compile(rf"(?:(?P<owner>[\w.-]+?)_)?(?P<model>{'|'.join(_MODELS.values())})(?:_(?:glue-)?(?P<task>.+))?")


def find(view: View) -> list[FoundSet]:
    """One set for each architecture in a folder."""
    named = [(unit, found) for unit in view.units if (found := _parsed(unit))]
    experts = {unit.path: found for unit, found in named if found["task"]}
    groups = grouped((u for u, _ in named if u.path in experts), lambda u: (u.container, experts[u.path]["model"]))
    return [_set(view, container, model, units, experts) for (container, model), units in groups.items()]


def _parsed(unit: Unit) -> re.Match[str] | None:
    return NAME.fullmatch(unit.name) if not unit.is_adapter and unit.path.is_dir() else None


def _set(view: View, container: Path, model: str, units: list[Unit], experts: dict[Path, re.Match[str]]) -> FoundSet:
    base, notes = _base(view, container, model)
    kept, skipped = strangers(units, base)
    tasks = by_task((experts[unit.path]["task"], unit) for unit in kept)
    folder = Path(commonpath([container, base.container])) if base else container
    shapes, config = (kept[0].peek.shapes, kept[0].config) if kept else ({}, {})
    encoder = encoder_of(shapes, config) or encoder_in_name(model, shapes)
    heads, head_notes = view.heads_for(tasks, folder, model)
    members = [*kept, *([base] if base else [])]
    layout = next(slug for slug, pattern in _MODELS.items() if re.fullmatch(pattern, model))
    return FoundSet(
        layout,
        f"{_TITLES[layout]}, {model}",
        folder,
        base and base.path,
        tasks,
        heads,
        encoder,
        skipped,
        (*notes, *head_notes, *unreadable(members)),
        pickled(members),
        () if base else notes,
    )


def _base(view: View, container: Path, model: str) -> tuple[Unit | None, tuple[str, ...]]:
    """The folder called after the model alone, beside the experts or in another owner's folder; else what is called base."""
    wanted = [u for u in view.every if (found := _parsed(u)) and found["model"] == model and not found["task"]]
    near = [unit for unit in wanted if unit.container == container]
    elsewhere = [unit for unit in wanted if unit.container.parent == container.parent or unit.container == container.parent]
    for candidates in (near, elsewhere):
        if len(candidates) == 1:
            return candidates[0], ()
        if candidates:
            names = ", ".join(shown(unit.path) for unit in candidates)
            return None, (f"several folders could be the base: {names}",)
    found = view.base_in(container)
    return found, () if found else (f"there is no folder {model} beside the experts",)
