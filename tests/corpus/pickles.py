"""Pickles that would run something, archives that unpack to far more than they are, and tensors that are none."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.corpus.making import Case, Expected, merging, tensors

Write = Callable[[Path], object]
#: A pickle that runs leaves a file of this name in the working folder, and that is seen as something left behind.
TRAP = "code-ran"


class _Calls:
    """Pickles as a call of anything."""

    def __init__(self, what: Callable, *given: Any) -> None:
        self.what, self.given = what, given

    def __reduce__(self) -> tuple[Any, ...]:
        return self.what, self.given


def _opcodes(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def _call(module: str, name: str, argument: str) -> bytes:
    return _opcodes(f"c{module}\n{name}\n".encode(), b"X", struct.pack("<I", len(argument)), argument.encode(), b"\x85R")


def _saved(content: Any, **options: Any) -> Write:
    return lambda path: torch.save(content, path, **options)


def _zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _archive(pickled: bytes, **more: bytes) -> Write:
    files = {"expert/data.pkl": pickled, "expert/version": b"3\n", "expert/byteorder": b"little", **more}
    return lambda path: _zip(path, files)


def _packed(path: Path) -> None:
    """Forty megabytes of zeros that take forty kilobytes on disk."""
    _zip(path, {"expert/data.pkl": bytes(40 << 20), "expert/version": b"3\n"}, zipfile.ZIP_DEFLATED)


def _directory(change: Callable[[bytearray, int], None]) -> Write:
    """Each entry of the archive's directory changed."""

    def write(path: Path) -> None:
        torch.save(tensors(1), path)
        data = bytearray(path.read_bytes())
        place = data.find(b"PK\x01\x02")
        while place >= 0:
            change(data, place)
            place = data.find(b"PK\x01\x02", place + 4)
        path.write_bytes(data)

    return write


def _sizes(data: bytearray, place: int) -> None:
    struct.pack_into("<II", data, place + 20, 0xFFFF_FFF0, 0xFFFF_FFF0)


def _offsets(data: bytearray, place: int) -> None:
    struct.pack_into("<I", data, place + 42, 0x7FFF_FFFF)


def _methods(data: bytearray, place: int) -> None:
    struct.pack_into("<H", data, place + 10, 99)


def _encrypted(data: bytearray, place: int) -> None:
    struct.pack_into("<H", data, place + 8, 1)


def _entry_gone(name: str) -> Write:
    def write(path: Path) -> None:
        buffer = io.BytesIO()
        torch.save(tensors(1), buffer)
        with zipfile.ZipFile(buffer) as old:
            _zip(path, {one: old.read(one) for one in old.namelist() if not one.endswith(name)})

    return write


def _itself() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["model"] = found
    return found


def _nested(depth: int) -> Any:
    found: Any = tensors(1)
    for _ in range(depth):
        found = {"model": found}
    return found


def _rebuilt(size: str, stride: str) -> bytes:
    """A tensor of the given size and stride over a storage of two numbers, in the opcodes of torch.save."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0" + b"X\x03\0\0\0cpuK\x02tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + size.encode("latin-1") + stride.encode("latin-1")
    return _opcodes(b"}X\x01\0\0\0w", tensor, b"\x89ccollections\nOrderedDict\n)RtRs")


def _long(number: int) -> str:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return (b"\x8a" + bytes([len(data)]) + data).decode("latin-1")


PROGRAMS: dict[str, Write] = {
    "os.system": lambda path: torch.save({"w": _Calls(os.system, f"touch {TRAP}")}, path),
    "open": lambda path: torch.save({"w": _Calls(builtins.open, TRAP, "w")}, path),
    "eval": lambda path: torch.save({"w": _Calls(eval, f"open({TRAP!r}, 'w')")}, path),
    "exec beside tensors": lambda path: torch.save({**tensors(1), "x": _Calls(exec, f"open({TRAP!r}, 'w')")}, path),
    "a call in the old format": lambda path: torch.save(
        _Calls(os.system, f"touch {TRAP}"), path, _use_new_zipfile_serialization=False
    ),
    "a plain pickle": lambda path: path.write_bytes(pickle.dumps(_Calls(os.system, f"touch {TRAP}"))),
    "posix.system by opcodes": lambda path: path.write_bytes(_call("posix", "system", f"touch {TRAP}")),
    "subprocess by opcodes": _archive(_call("subprocess", "getoutput", f"touch {TRAP}")),
    "a module that is imported": _archive(_call("antigravity", "fly", "x")),
    "getattr": _archive(_call("builtins", "getattr", "x")),
    "torch.load": _archive(_call("torch", "load", "/etc/hostname")),
    "torch.hub": _archive(_call("torch.hub", "load", "x")),
    "numpy.load": _archive(_call("numpy", "load", "/etc/hostname")),
    "a whole module": _saved(torch.nn.Linear(4, 6)),
    "an optimiser": _saved(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)),
    "a path": _saved({"w": Path("x")}),
    "an exception": _saved({"w": ValueError("x")}),
    "a lambda's code": _archive(_call("types", "FunctionType", "x")),
}
DAMAGED: dict[str, Write] = {
    "no pickle in the archive": _entry_gone("data.pkl"),
    "no version in the archive": _entry_gone("version"),
    "no numbers in the archive": _entry_gone("data/0"),
    "an empty pickle": _archive(b""),
    "a pickle that stops at once": _archive(b"."),
    "a pickle of noise": _archive(b"\x80\x02\xff\xfe\xfd."),
    "a pickle without an end": _archive(b"\x80\x02}"),
    "a pickle of protocol 250": _archive(b"\x80\xfa}."),
    "a memo that is not there": _archive(_opcodes(b"h\x07")),
    "a text longer than the file": _archive(_opcodes(b"X\xff\xff\xff\x7fabc")),
    "a text of 2^50 bytes": _archive(b"\x80\x04\x8d" + struct.pack("<Q", 2**50) + b"x."),
    "a number of 2^31 bytes": _archive(b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"."),
    "a number of minus five bytes": _archive(b"\x80\x02\x8b" + struct.pack("<i", -5) + b"."),
    "a deep pickle": _archive(_opcodes(b"]" * 30_000, b"a" * 29_999)),
    "sizes of four gigabytes": _directory(_sizes),
    "entries beyond the end": _directory(_offsets),
    "an unknown compression": _directory(_methods),
    "encrypted entries": _directory(_encrypted),
    "an archive of forty megabytes of zeros": _packed,
    "an archive in an archive": lambda path: _zip(path, {"expert/data.pkl": zip_bytes(), "expert/version": b"3"}),
    "a way up in the archive": _archive(b"\x80\x02}.", **{"../../" + TRAP: b"x"}),
    "two thousand entries": _archive(pickle.dumps({}, 2), **{f"expert/data/{n}": b"" for n in range(2_000)}),
    "a size of 2^40 over two numbers": _archive(_rebuilt(_long(2**40) + "\x85", "K\x00\x85"), **{"expert/data/0": bytes(8)}),
    "a size below zero": _archive(_rebuilt(_long(-2) + "\x85", "K\x01\x85"), **{"expert/data/0": bytes(8)}),
    "a stride beyond the numbers": _archive(_rebuilt("K\x02\x85", _long(2**50) + "\x85"), **{"expert/data/0": bytes(8)}),
    "a stride that is a text": _archive(_rebuilt("K\x02\x85", "X\x01\0\0\0a\x85"), **{"expert/data/0": bytes(8)}),
}
STRANGE: dict[str, tuple[Any, Expected]] = {
    "None": (None, "refused"),
    "a number": (7, "refused"),
    "a list of tensors": ([torch.ones(2)], "refused"),
    "a tensor": (torch.ones(6, 4), "refused"),
    "an empty table": ({}, "refused"),
    "a table of texts": ({"layer.weight": "x"}, "refused"),
    "keys that are numbers": ({0: torch.ones(6, 4), 1: torch.ones(6)}, "refused"),
    "keys that are pairs": ({("layer", "weight"): torch.ones(6, 4)}, "refused"),
    "itself": (_itself(), "refused"),
    "five tables deep": (_nested(5), "refused"),
    "three tables deep": (_nested(3), "refused"),
    "a sparse tensor": ({"layer.weight": torch.eye(6, 4).to_sparse(), "layer.bias": torch.ones(6)}, "refused"),
    "a tensor without numbers": ({"layer.weight": torch.ones(6, 4, device="meta"), "layer.bias": torch.ones(6)}, "refused"),
    "complex numbers": ({"layer.weight": torch.ones(6, 4, dtype=torch.complex64), "layer.bias": torch.ones(6)}, "refused"),
    "truth values": ({"layer.weight": torch.ones(6, 4, dtype=torch.bool), "layer.bias": torch.ones(6)}, "either"),
    "whole numbers": ({"layer.weight": torch.ones(6, 4, dtype=torch.int64), "layer.bias": torch.ones(6)}, "either"),
    "numbers that are none": ({"layer.weight": torch.full((6, 4), torch.nan), "layer.bias": torch.ones(6)}, "refused"),
    "infinite numbers": ({"layer.weight": torch.full((6, 4), -torch.inf), "layer.bias": torch.ones(6)}, "refused"),
    "one number for all": ({"layer.weight": torch.ones(1).expand(6, 4), "layer.bias": torch.ones(6)}, "either"),
    "2^40 times one number": ({"layer.weight": torch.ones(1).expand(2**20, 2**20)}, "refused"),
    "parameters": (OrderedDict({n: torch.nn.Parameter(v) for n, v in tensors(1).items()}), "read"),
    "a text of 200,000 characters": ({**tensors(1), "note": "c" * 200_000}, "either"),
    "two models": ({"model": tensors(1), "state_dict": tensors(2)}, "either"),
    "an epoch alone": ({"epoch": 3, "loss": 0.5}, "refused"),
}


def zip_bytes() -> bytes:
    """An archive as torch.save writes it."""
    buffer = io.BytesIO()
    torch.save({}, buffer)
    return buffer.getvalue()


def _case(name: str, write: Write, expected: Expected, suffix: str = ".pt") -> Case:
    def make(folder: Path) -> list[str]:
        write(folder / f"expert{suffix}")
        return merging(folder, folder / f"expert{suffix}")

    return Case(f"a {suffix} of {name}", expected, make)


def _inspected(name: str, write: Write) -> Case:
    def make(folder: Path) -> list[str]:
        write(folder / "expert.bin")
        return ["inspect", *merging(folder, folder / "expert.bin")[1:-2], "--all"]

    return Case(f"inspect a .bin of {name}", "refused", make)


CASES = [
    *(_case(f"a call: {name}", write, "refused") for name, write in PROGRAMS.items()),
    *(_case(name, write, "either" if name.startswith("no version") else "refused") for name, write in DAMAGED.items()),
    *(_case(name, _saved(content), expected) for name, (content, expected) in STRANGE.items()),
    *(_inspected(name, PROGRAMS[name]) for name in ("os.system", "a whole module", "a plain pickle", "torch.hub")),
]
