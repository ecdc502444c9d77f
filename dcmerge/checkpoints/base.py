"""What every checkpoint offers, whatever its layout on disk: names, shapes, dtypes, and one tensor at a time."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, Self

import torch
from torch import Tensor

from dcmerge.checkpoints.low_rank import LowRank
from dcmerge.checkpoints.names import canonical_names
from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.seen import SeenFile
from dcmerge.errors import InputError


@dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype of a stored tensor, known without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size of the dense tensor in bytes."""
        return prod(self.shape) * self.dtype.itemsize


class TensorFile(Protocol):
    """One file of named tensors; names are those of the file."""

    @property
    def path(self) -> Path: ...

    @property
    def seen(self) -> SeenFile: ...

    @property
    def infos(self) -> Mapping[str, TensorInfo]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def read(self, name: str) -> Tensor:
        """The tensor in the file's dtype, fresh at every call."""
        ...

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of it alone, as fresh."""
        ...


class Checkpoint(ABC):
    """A set of named tensors on disk, opened lazily.

    Attributes:
        path: the file or folder that was opened.
        kind: "safetensors", "state_dict" or "lora".
        infos: canonical name -> shape and dtype, in the file's order.
        source_names: canonical name -> name in the file.
        seen: the files that make up the checkpoint, as they were at the opening; their content is the fingerprint.
        files: their paths.
        notes: what is in the files but not in ``infos``, one sentence each, for the user.
        told: what the user must not overlook, one sentence each.
        rivals: parts of the base of which its names fit one as well as another (see ``names.aligned``).
        metadata: free text stored beside the tensors (safetensors only).
    """

    kind: str
    #: The class of the model that was trained, where the settings tell it: of an adapter of one tower.
    trained_class: str = ""
    #: Whether the files hold averaged weights (EMA) beside the live ones.
    averaged: bool = False

    def __init__(
        self, path: Path, infos: Mapping[str, TensorInfo], source_names: Mapping[str, str], seen: Sequence[SeenFile]
    ) -> None:
        self.path = path
        self.infos: Mapping[str, TensorInfo] = MappingProxyType(dict(infos))
        self.source_names: Mapping[str, str] = MappingProxyType(dict(source_names))
        self.seen = tuple(seen)
        self.files = tuple(file.path for file in self.seen)
        self.notes: tuple[str, ...] = ()
        self.told: tuple[str, ...] = ()
        self.rivals: tuple[str, ...] = ()
        self.metadata: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def read(self, name: str) -> Tensor | LowRank:
        """The tensor of that canonical name, fresh at every call: the caller may change it. KeyError if absent."""

    def tensor(self, name: str) -> Tensor:
        """``read`` where only whole weights will do; InputError where this is an adapter, which holds factors."""
        value = self.read(name)
        if isinstance(value, LowRank):
            raise InputError(f"Expected a model of whole weights, got the LoRA adapter {shown(self.path)}.")
        return value

    def read_rows(self, name: str, start: int, stop: int) -> Tensor | LowRank:
        """Rows ``start`` to ``stop`` of that tensor, as fresh; the others are not read where the file allows it."""
        value = self.read(name)
        return value.rows(start, stop) if isinstance(value, LowRank) else value[start:stop]

    @property
    def stored(self) -> Checkpoint:
        """The checkpoint as its files have it: itself, but for a view that groups tensors otherwise."""
        return self

    def renamed(self, names: Mapping[str, str]) -> Self:
        """The same checkpoint under other canonical names: own name -> new name, for all of them."""
        twin = copy.copy(self)
        twin.infos = MappingProxyType({names[name]: info for name, info in self.infos.items()})
        twin.source_names = MappingProxyType({names[name]: source for name, source in self.source_names.items()})
        return twin

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content, the same wherever the files lie.

        Of a single file it is what ``sha256sum`` prints; of several it is the hash over their sizes and hashes in the
        order of ``files``. Computed at the first use: it reads everything. InputError where a file has changed since.
        """
        digests = [file.digest() for file in self.seen]
        if len(digests) == 1:
            return digests[0]
        lines = (f"{file.size} {digest}\n" for file, digest in zip(self.seen, digests, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self.infos)} tensors)"


class StoredCheckpoint(Checkpoint):
    """Plain tensors from one file or from several shards."""

    def __init__(self, path: Path, kind: str, files: Sequence[TensorFile], extra_files: Sequence[SeenFile] = ()) -> None:
        """
        Args:
            path: what the user named.
            kind: "safetensors" or "state_dict".
            files: the shards; a name in two of them is an InputError.
            extra_files: what else decides the content (a shard index), for the fingerprint.
        """
        stored: dict[str, TensorInfo] = {}
        self._file_of: dict[str, TensorFile] = {}
        for file in files:
            for name, info in file.infos.items():
                if name in stored:
                    both = f"{self._file_of[name].path.name} and {file.path.name}"
                    raise InputError(f"The tensor {shown(name)} is in both {shown(both)} of {shown(path)}.")
                stored[name] = info
                self._file_of[name] = file
        if not stored:
            raise InputError(f"Expected tensors in {shown(path)}, found none.")
        source_names = canonical_names({name: info.dtype.is_floating_point for name, info in stored.items()}, path)
        infos = {canonical: stored[source] for canonical, source in source_names.items()}
        super().__init__(path, infos, source_names, [file.seen for file in files] + list(extra_files))
        self.kind = kind
        self.notes = tuple(note for file in files for note in file.notes)
        self.averaged = any(getattr(file, "averaged", False) for file in files)
        self.tensor_files = tuple(files)
        if len(files) == 1:
            self.metadata = MappingProxyType(dict(getattr(files[0], "metadata", {})))

    def read(self, name: str) -> Tensor:
        source = self.source_names[name]
        return self._file_of[source].read(source)

    def read_rows(self, name: str, start: int, stop: int) -> Tensor:
        source = self.source_names[name]
        return self._file_of[source].read_rows(source, start, stop)

    def file_of(self, name: str) -> TensorFile:
        """The file or shard that holds the tensor of that canonical name."""
        return self._file_of[self.source_names[name]]
