"""A pickle of PyTorch in any of its three wrappings, read into descriptions: no tensor is made and no class imported.

* a zip archive (``torch.save`` since PyTorch 1.6): ``data.pkl`` beside one stored record a storage;
* the format before it: four pickles in a row, then every storage as its length and its numbers;
* a plain ``pickle.dump``: every storage is bytes in the pickle, which hold the format before 1.6.

The layout of each: torch/serialization.py (``_load``, ``_legacy_load``).
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dcmerge.checkpoints.archives import ZIP_MARK, data_start
from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.pickles.vocabulary import Described, Named, Refused, Storage, Stub, Vocabulary

#: The first pickle of the format before 1.6.
_MAGIC = 0x1950A86A20F9469CFC6C
#: Of one file: more is a plain pickle of a language model or no model at all.
_MOST_STORAGES = 1_000_000


@dataclass(frozen=True)
class Region:
    """Bytes ``start`` to ``start + nbytes`` of the file, or of ``data`` where there is some."""

    start: int
    nbytes: int
    data: bytes | None = None


class _Unpickler(pickle.Unpickler):
    """Knows the vocabulary and no module; what ``persistent_id`` named at saving is a storage or a class's source."""

    def __init__(self, file: BinaryIO, words: Vocabulary, storage: Callable[[Any], Any]) -> None:
        super().__init__(file, encoding="latin1")
        self._words, self._storage = words, storage

    def find_class(self, module: str, name: str) -> Any:
        return self._words.find(module, name)

    def persistent_load(self, pid: Any) -> Any:
        return self._storage(pid)


class PickleFile:
    """One file, read at once into ``content``; ``read`` makes one of the tensors described in it.

    Raises Refused for what is no tensor, container or inert object; other errors of ``pickle`` mean a damaged file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self._regions: dict[tuple[int, str], Region] = {}
        self._nested = 0
        self._words, self._words_in_bytes = Vocabulary(self._storage_from_bytes), Vocabulary(_no_bytes)
        with open(path, "rb") as file:
            start = file.read(len(ZIP_MARK))
            file.seek(0)
            self.content = self._zipped(file) if start == ZIP_MARK else self._in_a_row(file, 0, self._words)

    def read(self, tensor: Described) -> torch.Tensor:
        """A tensor of its own, contiguous; of its storage only the bytes that it covers are read."""
        size, storage = tensor.dtype.itemsize, tensor.storage
        if 0 in tensor.shape:
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
        region = self._regions[storage.key]
        start = region.start + storage.first * storage.dtype.itemsize + tensor.offset * size
        nbytes = (last + 1) * size
        if region.data is not None:
            data = bytearray(region.data[start : start + nbytes])
        else:
            with open(self.path, "rb") as file:
                file.seek(start)
                data = bytearray(file.read(nbytes))
        return torch.frombuffer(data, dtype=tensor.dtype).as_strided(tensor.shape, tensor.stride).contiguous()

    def check(self, name: str, tensor: object) -> Described:
        """A tensor whose numbers are all in the file; anything else is Refused."""
        if not isinstance(tensor, Described):
            raise Refused(f"{shown(name)}, a {_kind(tensor)} where a tensor was expected")
        region, storage = self._regions.get(tensor.storage.key), tensor.storage
        if region is None or len(tensor.shape) != len(tensor.stride):
            raise Refused(f"the tensor {shown(name)} without its numbers")
        last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
        ends = (
            (storage.first + storage.count) * storage.dtype.itemsize,
            storage.first * storage.dtype.itemsize
            + (tensor.offset + (0 if 0 in tensor.shape else last + 1)) * tensor.dtype.itemsize,
        )
        entries = 1
        for n in tensor.shape:
            entries *= n
        if max(ends) > region.nbytes or entries * tensor.dtype.itemsize > self.size:
            raise Refused(f"the tensor {shown(name)}, which claims more bytes than the file has")
        return tensor

    def _zipped(self, file: BinaryIO) -> object:
        archive = zipfile.ZipFile(file)
        names = archive.namelist()
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused("no single data.pkl, as torch.save writes it")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise Refused("numbers in big-endian order")
        for info in archive.infolist():
            numbers = info.filename.startswith(f"{root}data/")
            # TorchScript compresses its program, which is not read.
            if info.compress_type != zipfile.ZIP_STORED and (numbers or info.filename == pickles[0]):
                raise Refused(f"the compressed record {shown(info.filename)}")
            if numbers:
                self._regions[0, info.filename.removeprefix(f"{root}data/")] = self._record(file, info)
        content = io.BytesIO(archive.read(pickles[0]))
        return _Unpickler(content, self._words, lambda pid: self._storage(0, pid, with_views=False)).load()

    def _record(self, file: BinaryIO, info: zipfile.ZipInfo) -> Region:
        start = data_start(file, info)
        if start is None:
            raise Refused(f"the damaged record {shown(info.filename)}")
        if start + info.file_size > self.size:
            raise Refused(f"the record {shown(info.filename)}, which claims more bytes than the file has")
        return Region(start, info.file_size)

    def _in_a_row(self, file: BinaryIO, place: int, words: Vocabulary, data: bytes | None = None) -> object:
        """The format before 1.6, or a plain pickle: whose first object is then all there is."""
        itemsize: dict[str, int] = {}

        def storage(pid: Any) -> Any:
            found = self._storage(place, pid, with_views=True)
            if isinstance(found, Storage):
                itemsize[found.key[1]] = found.dtype.itemsize
            return found

        def load() -> object:
            return _Unpickler(file, words, storage).load()

        first = load()
        if type(first) is not int or first != _MAGIC:
            if data is not None:
                raise Refused("bytes that are no storage of PyTorch")
            return first
        if load() != 1001:
            raise Refused("a protocol of PyTorch other than 1001")
        system = load()
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise Refused("numbers in big-endian order")
        content = load()
        keys = load()
        size = self.size if data is None else len(data)
        for key in keys if isinstance(keys, list) else []:
            header = file.read(8)
            count = struct.unpack("<q", header)[0] if len(header) == 8 else -1
            start, nbytes = file.tell(), count * itemsize.get(key, 0)
            if count < 0 or start + nbytes > size:
                raise Refused(f"the storage {shown(key)}, which claims more bytes than the file has")
            self._regions[place, str(key)] = Region(start, nbytes, data)
            file.seek(start + nbytes)
        return content

    def _storage_from_bytes(self, data: object) -> Storage:
        """``torch.storage._load_from_bytes``: a storage in a plain pickle, saved there in the format before 1.6."""
        self._nested += 1
        if not isinstance(data, bytes) or self._nested > _MOST_STORAGES:
            raise TypeError
        # Bytes in bytes are no storage, and could be nested without an end.
        found = self._in_a_row(io.BytesIO(data), self._nested, self._words_in_bytes, data)
        if not isinstance(found, Storage):
            raise TypeError
        return found

    def _storage(self, place: int, pid: Any, *, with_views: bool) -> Any:
        """("storage", kind, key, device, length[, view]); before 1.6 also ("module", class, ...), the source of a class."""
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and with_views:
            return pid[1]
        if not (isinstance(pid, tuple) and 5 <= len(pid) <= 6 and pid[0] == "storage" and isinstance(pid[1], Named)):
            raise Refused("a reference that names no storage")
        _, kind, key, _, count, *view = list(pid)
        first = 0
        if view and view[0] is not None:
            _, first, count = view[0]
        if not isinstance(key, str) or type(count) is not int or type(first) is not int or min(count, first) < 0:
            raise Refused("a storage of no size")
        return Storage((place, key), kind.dtype, first, count)


def _no_bytes(data: object) -> Storage:
    raise Refused("bytes within the bytes of a storage")


def _kind(value: object) -> str:
    return type(value).__qualname__ if isinstance(value, Stub) else type(value).__name__
