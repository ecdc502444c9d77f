"""Every layout on disk gives the same canonical names, shapes and tensors, and none is read before it is asked for."""

from __future__ import annotations

import hashlib
import json
import os
import time

import pytest
import torch
from safetensors.torch import save_file

from dcmerge.checkpoints import TensorInfo, open_checkpoint
from dcmerge.errors import InputError
from tests.checkpoints.builders import tiny_state, write_header


def sharded(folder, state, with_index=True):
    folder.mkdir()
    names = list(state)
    shards = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for shard, inside in shards.items():
        save_file({name: state[name] for name in inside}, folder / shard)
    if with_index:
        weight_map = {name: shard for shard, inside in shards.items() for name in inside}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def single(path, state):
    save_file(state, path)
    return path


def folder_with(folder, name, state):
    folder.mkdir()
    (torch.save if name.endswith(".bin") else save_file)(state, folder / name)
    return folder


def state_dict(path, state):
    torch.save(state, path)
    return path


def sharded_bin(folder, state):
    folder.mkdir()
    torch.save(state, folder / "pytorch_model-00001-of-00001.bin")
    weight_map = dict.fromkeys(state, "pytorch_model-00001-of-00001.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


LAYOUTS = {
    "file": ("safetensors", lambda tmp, state: single(tmp / "a.safetensors", state)),
    "folder": ("safetensors", lambda tmp, state: folder_with(tmp / "f", "model.safetensors", state)),
    "folder, other name": ("safetensors", lambda tmp, state: folder_with(tmp / "f", "expert.safetensors", state)),
    "sharded": ("safetensors", lambda tmp, state: sharded(tmp / "s", state)),
    "index file": ("safetensors", lambda tmp, state: sharded(tmp / "s", state) / "model.safetensors.index.json"),
    "shards without index": ("safetensors", lambda tmp, state: sharded(tmp / "s", state, with_index=False)),
    "pt": ("state_dict", lambda tmp, state: state_dict(tmp / "a.pt", state)),
    "nested pth": ("state_dict", lambda tmp, state: state_dict(tmp / "a.pth", {"epoch": 3, "state_dict": state})),
    "pytorch_model.bin": ("state_dict", lambda tmp, state: folder_with(tmp / "b", "pytorch_model.bin", state)),
    "sharded bin": ("state_dict", lambda tmp, state: sharded_bin(tmp / "b", state)),
    "wrapped": ("state_dict", lambda tmp, state: state_dict(tmp / "w.pt", {f"model.{k}": v for k, v in state.items()})),
}


@pytest.mark.parametrize(("kind", "build"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_tensors(tmp_path, kind, build):
    state = tiny_state()
    path = build(tmp_path, state)
    checkpoint = open_checkpoint(str(path))
    assert (checkpoint.kind, checkpoint.path) == (kind, path)
    assert dict(checkpoint.infos) == {name: TensorInfo(tuple(t.shape), t.dtype) for name, t in state.items()}
    for name, tensor in state.items():
        assert torch.equal(checkpoint.read(name), tensor)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_tensors_keep_their_dtype(tmp_path, suffix, dtype):
    tensor = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).to(dtype)
    path = tmp_path / f"a{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({"w": tensor}, path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.infos["w"] == TensorInfo((2, 2), dtype)
    assert checkpoint.infos["w"].nbytes == 4 * dtype.itemsize
    assert torch.equal(checkpoint.read("w"), tensor)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_what_was_read_may_be_changed(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({"w": torch.ones(3)}, path)
    checkpoint = open_checkpoint(path)
    before = checkpoint.fingerprint
    checkpoint.read("w").zero_()
    assert torch.equal(checkpoint.read("w"), torch.ones(3))
    assert open_checkpoint(path).fingerprint == before


def test_tensors_of_a_state_dict_are_plain(tmp_path):
    tied = torch.randn(4, 3)
    torch.save({"a": torch.nn.Parameter(tied), "b": tied.T}, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    a, b = checkpoint.read("a"), checkpoint.read("b")
    assert not a.requires_grad
    assert b.is_contiguous()
    assert torch.equal(b, tied.T)
    assert a.untyped_storage().nbytes() == a.nbytes


def test_what_is_no_tensor_is_told(tmp_path):
    torch.save({"state_dict": {"w": torch.ones(2), "model_name": "ViT"}, "epoch": 3}, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    assert list(checkpoint.infos) == ["w"]
    assert checkpoint.notes == ("a.pt: not tensors of the model, left out: epoch, model_name.",)


def test_opening_a_huge_file_reads_only_its_header(tmp_path):
    size = 2**40  # a terabyte that takes no room: more than any machine of ours could map or read
    path = tmp_path / "huge.safetensors"
    entry = {"dtype": "F32", "shape": [2**19, 2**19], "data_offsets": [0, size]}
    small = {"dtype": "F32", "shape": [2], "data_offsets": [size, size + 8]}
    write_header(path, {"w": entry, "small": small}, size + 8)
    start = time.perf_counter()
    checkpoint = open_checkpoint(path)
    assert time.perf_counter() - start < 1
    assert checkpoint.infos["w"] == TensorInfo((2**19, 2**19), torch.float32)
    assert torch.equal(checkpoint.read("small"), torch.zeros(2))
    try:
        assert checkpoint.read("w").shape == (2**19, 2**19)  # a system that overcommits maps it: still nothing is read
    except InputError as error:
        assert "more than this machine's memory" in str(error)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files through /proc")
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_no_file_stays_open(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tiny_state(), path)
    before = len(os.listdir("/proc/self/fd"))
    checkpoint = open_checkpoint(path)
    tensors = [checkpoint.read(name) for name in checkpoint.infos]
    assert len(os.listdir("/proc/self/fd")) == before
    assert tensors


def test_a_file_that_changed_is_noticed(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(3)}, path)
    checkpoint = open_checkpoint(path)
    save_file({"w": torch.ones(4)}, path)
    with pytest.raises(InputError, match="has changed since it was opened"):
        checkpoint.read("w")
    path.unlink()
    with pytest.raises(InputError, match="There is no file"):
        checkpoint.read("w")


def test_an_unknown_name_is_a_key_error(tmp_path):
    save_file({"w": torch.ones(3)}, tmp_path / "a.safetensors")
    with pytest.raises(KeyError):
        open_checkpoint(tmp_path / "a.safetensors").read("other")


def test_fingerprint_is_the_content(tmp_path):
    for name, value in {"a": 1.0, "b": 1.0, "c": 2.0}.items():
        save_file({"w": torch.full((3,), value)}, tmp_path / f"{name}.safetensors")
    a, b, c = (open_checkpoint(tmp_path / f"{name}.safetensors").fingerprint for name in "abc")
    assert a == b != c
    assert a == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    time.sleep(0.02)  # longer than the steps of a file system's clock
    save_file({"w": torch.full((3,), 2.0)}, tmp_path / "a.safetensors")
    assert open_checkpoint(tmp_path / "a.safetensors").fingerprint == c


def test_fingerprint_of_shards_sees_each_of_them(tmp_path):
    state = tiny_state()
    first = open_checkpoint(sharded(tmp_path / "a", state)).fingerprint
    assert open_checkpoint(sharded(tmp_path / "b", state)).fingerprint == first
    state["token_embedding.weight"][0, 0] += 1
    assert open_checkpoint(sharded(tmp_path / "c", state)).fingerprint != first


@pytest.mark.parametrize("name", ["float64", "float32", "bfloat16", "float16", "int64", "uint8", "bool"])
def test_small_and_large_tensors_of_every_dtype_are_those_of_the_library(tmp_path, name):
    dtype = getattr(torch, name)
    draw = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, shape, generator=draw).to(dtype)
        for name, shape in {"scalar": (), "none": (0, 3), "small": (7, 5), "large": (1100, 1100, 4), "last": (3,)}.items()
    }
    save_file(tensors, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    for name, wanted in tensors.items():
        found = checkpoint.read(name)
        assert found.dtype == dtype and torch.equal(found, wanted)
        found.fill_(1)  # the caller's own
    assert torch.equal(checkpoint.read("small"), tensors["small"])
