"""What the layouts of task arithmetic share: a model's folder with one folder for each data set, its expert in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dcmerge.checkpoints.paths import shown
from dcmerge.sets.layouts.encoders import as_openai, encoder_in_name, encoder_of
from dcmerge.sets.layouts.found import FoundSet, Skipped
from dcmerge.sets.layouts.peek import same_content
from dcmerge.sets.layouts.units import Unit
from dcmerge.sets.layouts.view import View, grouped, pickled, unreadable

#: Names of an expert's file, the first one wins.
EXPERTS, BASES = ("nonlinear_finetuned", "finetuned"), ("nonlinear_zeroshot", "zeroshot")
#: TALL-masks' code writes it into a model's name where the weights are not OpenAI's.
PRETRAINED = "__pretrained__"
VALIDATION = "Val"


@dataclass
class ModelFolder:
    """One model: task -> its expert; ``inner`` are the bases in the tasks' folders, ``outer`` those in the model's own."""

    path: Path
    experts: dict[str, Unit]
    inner: list[Unit]
    outer: list[Unit]
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def is_old(self) -> bool:
        """Whether this is the layout of the first task arithmetic: one zeroshot file in the model's folder."""
        newer = any(unit.name != EXPERTS[1] for unit in self.experts.values())
        marked = all(unit.container.name.endswith(VALIDATION) for unit in self.experts.values())
        return not newer and not self.inner and (bool(self.outer) or not marked)

    def found(self, view: View, layout: str, words: str) -> FoundSet:
        base, notes = self._base()
        members = [*self.experts.values(), *([base] if base else [])]
        folders = {task: unit.container.name for task, unit in self.experts.items()}
        heads, head_notes = view.heads_for(folders.values(), self.path, self.path.name)
        named = {task: heads[name] for task, name in folders.items() if name in heads}
        experts = {task: unit.path for task, unit in sorted(self.experts.items())}
        return FoundSet(
            layout,
            f"{words} {shown(self.path.name)}",
            self.path,
            base and base.path,
            experts,
            named,
            self._encoder(),
            tuple(self.skipped),
            (*notes, *head_notes, *unreadable(members)),
            pickled(members),
            () if base else notes,
        )

    def _base(self) -> tuple[Unit | None, tuple[str, ...]]:
        """The one base, or a note where there is none, or files that differ."""
        candidates = [*self.outer, *self.inner]
        if not candidates:
            return None, (f"no {' or '.join(BASES)} was found in {shown(self.path.name)} or in the folders of its data sets",)
        if not same_content(unit.path for unit in candidates):
            names = ", ".join(shown(unit.path.relative_to(self.path)) for unit in candidates[:4])
            return None, (
                f"{len(candidates)} files could be the base, but they hold different weights ({names}, ...)"
                if len(candidates) > 4
                else f"these could be the base, but they hold different weights: {names}",
            )
        base, *twins = candidates
        told = shown(base.path.relative_to(self.path))
        self.skipped += [Skipped(twin.path, f"holds the same weights as {told}, which is used") for twin in twins]
        return base, ()

    def _encoder(self) -> str | None:
        openai = PRETRAINED not in self.path.name or f"{PRETRAINED}openai" in self.path.name
        for unit in self.experts.values():
            if unit.peek.shapes:
                return encoder_of(unit.peek.shapes, {}, openai)
        named = encoder_in_name(self.path.name)
        return as_openai(named) if openai else named


def model_folders(view: View) -> Iterator[ModelFolder]:
    """Every folder whose subfolders hold experts called as task arithmetic and its successors call them."""
    inside = [unit for unit in view.units if unit.name in (*EXPERTS, *BASES) and unit.path.parent == unit.container]
    folders = grouped(inside, lambda unit: unit.container)
    models: dict[Path, list[list[Unit]]] = {}
    for folder, units in folders.items():
        if folder != view.tree.path and any(unit.name in EXPERTS for unit in units):
            models.setdefault(folder.parent, []).append(units)
    for path, data_sets in models.items():
        outer = sorted((unit for unit in folders.get(path, []) if unit.name in BASES), key=lambda u: BASES.index(u.name))
        yield _model_folder(path, data_sets, outer)


def _model_folder(path: Path, data_sets: list[list[Unit]], outer: list[Unit]) -> ModelFolder:
    names = [_task(units[0].container.name) for units in data_sets]
    model = ModelFolder(path, {}, [], outer)
    for name, units in zip(names, data_sets, strict=True):
        task = units[0].container.name if names.count(name) > 1 else name
        expert, *others = sorted((u for u in units if u.name in EXPERTS), key=lambda u: EXPERTS.index(u.name))
        model.experts[task] = expert
        reason = f"is another expert of {shown(task)}; {shown(expert.path.name)} is used"
        model.skipped += [Skipped(other.path, reason) for other in others]
        model.inner += sorted((u for u in units if u.name in BASES), key=lambda u: BASES.index(u.name))
    return model


def _task(folder: str) -> str:
    """The data set of a folder: MNIST of MNISTVal."""
    return folder.removesuffix(VALIDATION) or folder
