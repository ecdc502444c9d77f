"""Folders of sentence-transformers: a model and the modules behind it (``modules.json``), as one checkpoint.

Since version 2 the model lies in the folder itself, before it in ``0_Transformer``; a trained module behind it has a folder of
its own (``2_Dense``). Names of the model are those of its file, those of another module begin with its folder.
https://sbert.net/docs/sentence_transformer/usage/custom_models.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from dcmerge.checkpoints.base import TensorFile, TensorInfo
from dcmerge.checkpoints.seen import SeenFile

MODULES = "modules.json"
#: Settings beside it, and in the folders of modules.
SETTINGS = (MODULES, "config_sentence_transformers.json", "sentence_bert_config.json", "router_config.json")
_FOLDER = re.compile(r"\d{1,3}_\w+", re.ASCII)


def is_module(name: str) -> bool:
    """Whether a folder beside ``modules.json`` is a module's, by its name."""
    return bool(_FOLDER.fullmatch(name))


def module_folders(folder: Path) -> list[Path]:
    """The folders of modules in a folder of sentence-transformers, by number; none in any other folder."""
    if not (folder / MODULES).is_file():
        return []
    found = [entry for entry in folder.iterdir() if entry.is_dir() and is_module(entry.name)]
    return sorted(found, key=lambda entry: int(entry.name.partition("_")[0]))


@dataclass(frozen=True)
class Within:
    """A file of a module: its names begin with ``prefix``, and it lies in the folder ``inside`` of the model's."""

    file: TensorFile
    prefix: str
    inside: str
    infos: Mapping[str, TensorInfo] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "infos", {self.prefix + name: info for name, info in self.file.infos.items()})

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def seen(self) -> SeenFile:
        return self.file.seen

    @property
    def notes(self) -> tuple[str, ...]:
        return self.file.notes

    def read(self, name: str) -> Tensor:
        return self.file.read(name.removeprefix(self.prefix))

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        return self.file.read_rows(name.removeprefix(self.prefix), start, stop)


def within(files: Iterable[TensorFile], module: Path, *, is_model: bool) -> list[Within]:
    """The files of one module; the model itself keeps its names."""
    return [Within(file, "" if is_model else f"{module.name}.", module.name) for file in files]
