"""Files that are not what their names say, and paths that lead to no file."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from safetensors.torch import save

from tests.corpus.making import Case, merged, merging, model, raw, tensors


def _zip(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights"), None)
    return buffer.getvalue()


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((6, 4), dtype=np.float32))
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 998877\n"
CONTENTS: dict[str, bytes] = {
    "pointer of Git LFS": POINTER,
    "pointer with other line ends": POINTER.replace(b"\n", b"\r\n"),
    "cut pointer": POINTER[:60],
    "page of an error": b"<!doctype html>\n<html lang=en><title>403 Forbidden</title><h1>Forbidden</h1></html>",
    "page behind a mark": "\ufeff<html><body>Sign in to continue</body></html>".encode(),
    "XML of a bucket": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "JSON of an error": b'{"error": "gated repository", "status": 401}',
    "nothing": b"",
    "one byte": b"\x7f",
    "a newline": b"\n",
    "seven zeros": b"\0" * 7,
    "eight zeros": b"\0" * 8,
    "sixty zeros": b"\0" * 60,
    "ones": b"\xff" * 64,
    "noise": Random(7).randbytes(700),
    "gzip": b"\x1f\x8b\x08\x00" + Random(8).randbytes(90),
    "xz": b"\xfd7zXZ\x00" + Random(9).randbytes(90),
    "a picture": b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0" * 40,
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "a program": b"\x7fELF\x02\x01\x01" + b"\0" * 57,
    "a script": b"#!/bin/sh\necho hello\n",
    "GGUF": b"GGUF\x03\0\0\0" + b"\0" * 40,
    "HDF5": b"\x89HDF\r\n\x1a\n" + b"\0" * 60,
    "a database": b"SQLite format 3\0" + b"\0" * 84,
    "an array": _npy(),
    "arrays": _zip(**{"a.npy": _npy()}),
    "an empty archive": _zip(),
    "an archive of texts": _zip(**{"readme.txt": b"hello"}),
    "a tar": _tar(),
    "text in UTF-16": "weights".encode("utf-16"),
    "settings": b"hidden_size: 768\nlayers: 12\n",
}


def _named(name: str, suffix: str, content: bytes) -> Case:
    return Case(f"{name} called {suffix}", "refused", lambda folder: merging(folder, raw(folder / f"expert{suffix}", content)))


def _in_folder(content: bytes) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        model(folder / "base.safetensors", 0)
        model(folder / "good.safetensors", 1)
        raw(folder / "bad.safetensors", content)
        raw(folder / "bad.pt", content)
        return ["inspect", str(folder)]

    return make


def _as_base(content: bytes) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        return merged(folder, raw(folder / "base.safetensors", content), [model(folder / "one.safetensors", 1)])

    return make


def _weights(suffix: str) -> bytes:
    if suffix == ".safetensors":
        return save(tensors(1))
    buffer = io.BytesIO()
    torch.save(tensors(1), buffer)
    return buffer.getvalue()


def _cut(suffix: str, keep: float) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        whole = _weights(suffix)
        return merging(folder, raw(folder / f"expert{suffix}", whole[: int(len(whole) * keep)]))

    return make


def _longer(suffix: str) -> Callable[[Path], list[str]]:
    return lambda folder: merging(folder, raw(folder / f"expert{suffix}", _weights(suffix) + b"\0" * 33))


def _swapped(held: str, named: str) -> Callable[[Path], list[str]]:
    return lambda folder: merging(folder, raw(folder / f"expert{named}", _weights(held)))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket has room for 100 characters only
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere.safetensors")


def _to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _place(put: Callable[[Path], None], name: str = "expert.safetensors") -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        put(folder / name)
        return merging(folder, folder / name)

    return make


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(6 << 30)


PLACES: dict[str, Callable[[Path], None]] = {
    "a pipe": _pipe,
    "a socket": _socket,
    "a link to itself": _loop,
    "a link to nothing": _dangling,
    "a link to a device": _to_device,
    "an empty folder": Path.mkdir,
    "six gigabytes of holes": _sparse,
    "nothing at the path": lambda path: None,
}
AS_PICKLES = (
    "pointer of Git LFS",
    "page of an error",
    "nothing",
    "one byte",
    "noise",
    "ones",
    "GGUF",
    "arrays",
    "an empty archive",
    "a tar",
)
IN_FOLDERS = ("pointer of Git LFS", "page of an error", "nothing", "noise", "GGUF", "ones", "an archive of texts")

CASES = [
    *(_named(name, ".safetensors", content) for name, content in CONTENTS.items()),
    *(_named(name, ".pt", CONTENTS[name]) for name in AS_PICKLES),
    *(Case(f"{name} as a base", "refused", _as_base(CONTENTS[name])) for name in IN_FOLDERS),
    *(Case(f"{name} in a folder", "either", _in_folder(CONTENTS[name])) for name in IN_FOLDERS),
    *(
        Case(f"cut{suffix} at {keep}", "refused", _cut(suffix, keep))
        for suffix in (".safetensors", ".pt")
        for keep in (0.3, 0.6, 0.9)
    ),
    Case("longer .safetensors", "refused", _longer(".safetensors")),
    Case("longer .pt", "either", _longer(".pt")),
    Case("a .pt called .safetensors", "either", _swapped(".pt", ".safetensors")),
    Case("a .safetensors called .pt", "either", _swapped(".safetensors", ".pt")),
    *(Case(name, "refused", _place(put)) for name, put in PLACES.items()),
    *(Case(f"{name} called .pt", "refused", _place(put, "expert.pt")) for name, put in PLACES.items()),
]
