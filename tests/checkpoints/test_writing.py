"""The streaming writer: its files are what the safetensors library reads, bit by bit, or there is no file at all."""

from __future__ import annotations

import errno
import os
import stat
import struct
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from dcmerge.checkpoints import GrowingWriter, SafetensorsWriter, TensorInfo, open_checkpoint, write_safetensors, writing
from dcmerge.checkpoints.dtypes import DTYPES
from dcmerge.errors import Cancelled, InputError


def infos_of(tensors):
    return {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def random_tensor(dtype, shape):
    count = torch.Size(shape).numel() * dtype.itemsize
    high = 2 if dtype == torch.bool else 256
    return torch.randint(0, high, (count,), dtype=torch.uint8).view(dtype).reshape(shape)


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


SHAPES = st.lists(st.integers(0, 4), max_size=3)
STATES = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(list(DTYPES.values())), SHAPES),
    max_size=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(STATES)
def test_what_is_written_is_read_bit_by_bit(tmp_path, state):
    tensors = {name: random_tensor(dtype, shape) for name, (dtype, shape) in state.items()}
    path = tmp_path / "a.safetensors"
    write_safetensors(path, tensors.items(), infos_of(tensors), {"recipe": "ü\n"})
    read = load_file(path)
    assert read.keys() == tensors.keys()
    assert all(same_bits(read[name], tensor) for name, tensor in tensors.items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "recipe": "ü\n"}


def test_order_alignment_and_padding(tmp_path):
    tensors = {
        "z": torch.ones(3, dtype=torch.uint8),
        "b": torch.ones(2, 2),
        "a": torch.ones(2),
        "s": torch.tensor(1.5, dtype=torch.float64),
    }
    path = tmp_path / "a.safetensors"
    write_safetensors(path, tensors.items(), infos_of(tensors))
    with safe_open(path, "pt") as file:
        assert file.offset_keys() == ["s", "b", "a", "z"]
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    assert len(content) == 8 + length + 3 + 16 + 8 + 8
    assert all(open_checkpoint(path).read(name).data_ptr() % tensors[name].itemsize == 0 for name in tensors)


def test_any_memory_layout(tmp_path):
    tensors = {
        "transposed": torch.randn(3, 4).T,
        "strided": torch.randn(10)[::3],
        "expanded": torch.randn(1, 3).expand(5, 3),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    write_safetensors(tmp_path / "a.safetensors", reversed(tensors.items()), infos_of(tensors))
    read = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_one_tensor_in_memory_at_a_time(tmp_path):
    made = []

    def stream():
        for index in range(5):
            assert all(reference() is None for reference in made)
            tensor = torch.ones(4)
            made.append(weakref.ref(tensor))
            yield str(index), tensor
            del tensor

    infos = {str(index): TensorInfo((4,), torch.float32) for index in range(5)}
    write_safetensors(tmp_path / "a.safetensors", stream(), infos)
    assert len(load_file(tmp_path / "a.safetensors")) == 5


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_safetensors(tmp_path / "a.safetensors", [("a", torch.ones(1))], {"a": TensorInfo((1,), torch.float32)})
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640


def stop_with(error):
    yield "a", torch.ones(2)
    raise error


ANNOUNCED = {"a": TensorInfo((2,), torch.float32), "b": TensorInfo((3,), torch.float32)}
FAILURES = {
    "missing": (lambda: [("a", torch.ones(2))], ValueError, "1 tensors never came, the first is b"),
    "extra": (lambda: [("c", torch.ones(2))], ValueError, "c came but is not in infos"),
    "twice": (lambda: [("a", torch.ones(2))] * 2, ValueError, "a came twice"),
    "other shape": (lambda: [("a", torch.ones(3))], ValueError, r"a was announced as \(2,\)"),
    "other dtype": (lambda: [("a", torch.ones(2).half())], ValueError, r"came as \(2,\) torch.float16"),
    "bad input": (lambda: stop_with(InputError("NaN in a")), InputError, "NaN in a"),
    "cancelled": (lambda: stop_with(Cancelled()), Cancelled, None),
    "interrupted": (lambda: stop_with(KeyboardInterrupt()), KeyboardInterrupt, None),
}


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(("stream", "error", "message"), FAILURES.values(), ids=FAILURES)
def test_a_failure_leaves_nothing_behind(tmp_path, stream, error, message, existing):
    path = tmp_path / "a.safetensors"
    if existing:
        path.write_bytes(b"before")
    with pytest.raises(error, match=message):
        write_safetensors(path, stream(), ANNOUNCED)
    assert [entry.name for entry in tmp_path.iterdir()] == (["a.safetensors"] if existing else [])
    assert not existing or path.read_bytes() == b"before"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_told(tmp_path, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing.os, step, full)
    with pytest.raises(InputError, match="the disk is full"):
        write_safetensors(tmp_path / "a.safetensors", [("a", torch.ones(1))], {"a": TensorInfo((1,), torch.float32)})
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_write_that_fails_is_told(tmp_path, monkeypatch):
    real_open = open
    monkeypatch.setattr(writing, "open", lambda *_, **__: real_open("/dev/full", "wb", buffering=0), raising=False)
    with pytest.raises(InputError, match="the disk is full"):
        write_safetensors(tmp_path / "a.safetensors", [("a", torch.ones(1))], {"a": TensorInfo((1,), torch.float32)})


def test_too_little_room_is_told_before_the_work(tmp_path):
    infos = {"a": TensorInfo((2**40, 2**20), torch.float32)}
    with pytest.raises(InputError, match="needs [0-9]+ bytes and the disk has"):
        write_safetensors(tmp_path / "a.safetensors", stop_with(AssertionError("read")), infos)


BAD_TARGETS = {
    "no folder": ("no/a.safetensors", "there is no folder"),
    "a folder": (".", "is not a file|path of a file"),
    "below a file": ("file/a.safetensors", "there is no folder"),
    "NUL": ("a\0.safetensors", "path of a file"),
    "too long": ("a" * 300, "File name too long"),
}


@pytest.mark.parametrize(("name", "message"), BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_targets_that_cannot_be_written(tmp_path, name, message):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        write_safetensors(f"{tmp_path}/{name}", [], {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("infos", "metadata"),
    [
        ({"__metadata__": TensorInfo((1,), torch.float32)}, {}),
        ({"a": TensorInfo((1,), torch.complex128)}, {}),
        ({}, {"recipe": 3}),
    ],
)
def test_what_the_format_cannot_hold(tmp_path, infos, metadata):
    with pytest.raises(ValueError, match=r"__metadata__|no dtype|metadata is text"):
        write_safetensors(tmp_path / "a.safetensors", [], infos, metadata)


def test_a_growing_file_is_one_that_the_library_reads(tmp_path):
    path, names = tmp_path / "a.safetensors", [f"weight.{i}" for i in range(5)]
    tensors = {name: torch.randn(3 + i, 7 - i) for i, name in enumerate(names)}
    with GrowingWriter(path, names, torch.float32, {"recipe": "x"}) as file:
        for name in reversed(names):
            file.put(name, tensors[name])
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "recipe": "x"}
        assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in names) and len(file.keys()) == len(names)
    assert open_checkpoint(path).infos.keys() == set(names)


@pytest.mark.parametrize("mistake", ["missing", "twice", "unknown", "dtype"])
def test_a_growing_file_with_a_mistake_leaves_nothing_behind(tmp_path, mistake):
    puts = {"missing": ["a"], "twice": ["a", "a"], "unknown": ["a", "c"], "dtype": ["a", "b"]}[mistake]
    growing = GrowingWriter(tmp_path / "x.safetensors", ["a", "b"], torch.float32, {})
    with pytest.raises(ValueError, match="never came|came twice|not in infos|announced"), growing as file:
        for name in puts:
            file.put(name, torch.ones(2, dtype=torch.float64 if mistake == "dtype" and name == "b" else torch.float32))
    assert not list(tmp_path.iterdir())


def test_several_files_open_together_appear_each_when_its_block_ends(tmp_path):
    info = {"a": TensorInfo((2,), torch.float32)}
    with SafetensorsWriter(tmp_path / "1.safetensors", info) as one, SafetensorsWriter(tmp_path / "2.safetensors", info) as two:
        for file in (two, one):
            file.put("a", torch.ones(2))
        assert not list(tmp_path.glob("[12]*"))
    assert {path.name for path in tmp_path.iterdir()} == {"1.safetensors", "2.safetensors"}
