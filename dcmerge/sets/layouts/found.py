"""What a layout gives back: a set of checkpoints that belong together, and what of the folder is not part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from dcmerge.checkpoints.paths import shown
from dcmerge.errors import InputError


@dataclass(frozen=True)
class Skipped:
    """A file or folder that is not used, and why, in one sentence."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FoundSet:
    """A base and its experts as they lie on disk. Nothing is opened but headers and settings.

    Attributes:
        layout: slug of the layout: task_vectors, old_task_vectors, fusion_bench, merge_bench, peft, open_clip, language_model,
            plain, hub.
        title: the same in words, with the model's name where it is known.
        folder: what holds the set.
        base: the base's file or folder; None where there is none (adapters do without) or none can be told from the rest.
        experts: task -> file or folder, by task.
        heads: task -> the file of its head, where there is one.
        encoder: open_clip's name of the image encoder, where names, settings or shapes tell it.
        skipped: everything in the folder that is not used.
        notes: what the user should know, one sentence each.
        doubts: those of the notes that say why there is no base.
        convert: files that hold pickled modules and must be converted before the set can be opened.
    """

    layout: str
    title: str
    folder: Path
    base: Path | None
    experts: Mapping[str, Path]
    heads: Mapping[str, Path] = field(default_factory=dict)
    encoder: str | None = None
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    convert: tuple[Path, ...] = ()
    doubts: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """Plain data, from which ``from_data`` makes the same again."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> FoundSet:
        paths = {name: {task: Path(path) for task, path in data[name].items()} for name in ("experts", "heads")}
        texts = {name: tuple(data[name]) for name in ("notes", "doubts")}
        return cls(
            **{
                **data,
                **paths,
                **texts,
                "folder": Path(data["folder"]),
                "base": data["base"] and Path(data["base"]),
                "skipped": tuple(Skipped(Path(path), reason) for path, reason in data["skipped"]),
                "convert": tuple(map(Path, data["convert"])),
            }
        )

    @property
    def is_lora(self) -> bool:
        return self.layout == "peft"

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """Every file or folder that is opened: the base first, then the experts."""
        return (*([self.base] if self.base else ()), *self.experts.values())

    @property
    def lacks(self) -> str:
        """What must be done before this set can be opened, one sentence; nothing where it can be."""
        if self.convert:
            first = self.convert[0]
            rest = f" and {len(self.convert) - 1} more files alike" if len(self.convert) > 1 else ""
            return (
                f"{shown(first)}{rest} holds a pickled module, which could run code when opened: convert it first with "
                f"python -m dcmerge convert {shown(first)} {shown(first.with_suffix('.safetensors'))}"
            )
        if self.base is None and not self.is_lora:
            return f"none of the files in {shown(self.folder)} can be recognised as the base"
        return ""

    def with_base(self, base: str | Path | None) -> FoundSet:
        """The same set with another base, or itself for None; a base that was among the experts is none of them any more."""
        if base is None:
            return self
        path = Path(base)
        experts = {task: expert for task, expert in self.experts.items() if not _same(expert, path)}
        convert = tuple(old for old in self.convert if old in experts.values())
        notes = tuple(note for note in self.notes if note not in self.doubts)
        return replace(self, base=path, experts=experts, convert=convert, notes=notes, doubts=())

    def checked(self) -> FoundSet:
        """Itself; raises InputError where something must be done before it can be opened."""
        if self.lacks:
            raise InputError(f"{self.lacks[0].upper()}{self.lacks[1:]}.", "" if self.convert else "base")
        if not self.experts:
            raise InputError(f"expected a base and at least one expert in {shown(self.folder)}, got 0 experts")
        return self


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return [str(value.path), value.reason] if isinstance(value, Skipped) else value


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other
