"""Whatever is wrong with a path or a file: one sentence that names it, never a traceback, never a half-read model."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file

from dcmerge.checkpoints import open_checkpoint, paths, state_dicts
from dcmerge.errors import InputError
from tests.checkpoints.builders import Tiny, save_adapter, tiny_state, write_header


def truncated(tmp):
    path = tmp / "cut.safetensors"
    save_file(tiny_state(), path)
    path.write_bytes(path.read_bytes()[:-10])
    return path


def written(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def saved(path, value, **options):
    path.parent.mkdir(exist_ok=True)
    torch.save(value, path, **options)
    return path


def fifo(tmp, name):
    os.mkfifo(tmp / name)
    return tmp / name


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "no weights")
    return path


def index(tmp, weight_map, tensors=("a",)):
    save_file({name: torch.ones(2) for name in tensors}, tmp / "model-1.safetensors")
    return written(tmp / "model.safetensors.index.json", json.dumps({"weight_map": weight_map}))


def numbered_shard_alone(tmp):
    for number in (1, 2):
        save_file({f"w{number}": torch.ones(2)}, tmp / f"m-0000{number}-of-00003.safetensors")
    return tmp


def two_shards_with_the_same_name(tmp):
    for number in (1, 2):
        save_file({"w": torch.ones(2)}, tmp / f"m-0000{number}-of-00002.safetensors")
    return tmp


def adapter_without_config(tmp):
    save_adapter(tmp / "ad", target_modules=["c_fc"])
    (tmp / "ad" / "adapter_config.json").unlink()
    return tmp / "ad"


def unknown_dtype(tmp):
    write_header(tmp / "f4.safetensors", {"w": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}, 2)
    return tmp / "f4.safetensors"


def two_state_dicts(tmp):
    saved(tmp / "a.pt", tiny_state())
    saved(tmp / "b.pt", tiny_state())
    return tmp


def collision(tmp):
    save_file({"model.w": torch.ones(2), "w": torch.ones(2, dtype=torch.int64)}, tmp / "a.safetensors")
    return tmp / "a.safetensors"


def single(tmp, tensors):
    save_file(tensors, tmp / "a.safetensors")
    return tmp / "a.safetensors"


def header(tmp, shape, nbytes):
    write_header(tmp / "a.safetensors", {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, nbytes]}}, nbytes)
    return tmp / "a.safetensors"


def empty_safetensors(tmp):
    save_file({}, tmp / "none.safetensors")
    return tmp / "none.safetensors"


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BAD_INPUT = {
    "empty path": (lambda tmp: "", "an empty one"),
    "missing": (lambda tmp: tmp / "no.safetensors", r"There is no file or folder .*no\.safetensors"),
    "below a file": (lambda tmp: written(tmp / "f.txt", "x") / "a", "Cannot open"),
    "too long": (lambda tmp: tmp / ("a" * 5000), "Cannot open"),
    "NUL": (lambda tmp: f"{tmp}/a\0.safetensors", r"NUL byte: .*a\\x00\.safetensors"),
    "device": (lambda tmp: "/dev/zero", "device, pipe or socket"),
    "fifo": (lambda tmp: fifo(tmp, "a.safetensors"), "device, pipe or socket"),
    "fifo in a folder": (lambda tmp: fifo(tmp, "model.safetensors").parent, "device, pipe or socket"),
    "dangling link": (lambda tmp: (tmp / "l.pt").symlink_to(tmp / "gone") or tmp / "l.pt", "There is no file"),
    "link to itself": (lambda tmp: (tmp / "l.pt").symlink_to(tmp / "l.pt") or tmp / "l.pt", "Cannot open"),
    "other suffix": (lambda tmp: written(tmp / "a.txt", "hello"), "Expected a checkpoint"),
    "empty folder": (lambda tmp: tmp, "the folder is empty"),
    "folder without weights": (lambda tmp: written(tmp / "a.txt", "x").parent, r"Expected weights.*found a\.txt"),
    "several state dicts": (two_state_dicts, r"found a\.pt, b\.pt: name one"),
    "line break in the name": (lambda tmp: tmp / "a\nb.pt", r"a\\nb\.pt"),
    "empty safetensors": (lambda tmp: written(tmp / "a.safetensors", ""), r"\(0 bytes\)"),
    "garbage safetensors": (lambda tmp: written(tmp / "a.safetensors", b"\xff" * 99), "damaged or not one"),
    "no header": (lambda tmp: written(tmp / "a.safetensors", struct.pack("<Q", 9) + b"not JSON!"), "damaged"),
    "truncated safetensors": (truncated, "Expected a complete safetensors file"),
    "no tensors": (empty_safetensors, "Expected tensors"),
    "unknown dtype": (unknown_dtype, "has the dtype F4"),
    "collision": (collision, "have the same name"),
    "index without map": (lambda tmp: written(tmp / "x.safetensors.index.json", "{}"), "with a weight_map"),
    "index damaged": (lambda tmp: written(tmp / "x.safetensors.index.json", "{"), "Expected a JSON file"),
    "index not an object": (lambda tmp: written(tmp / "x.safetensors.index.json", "[]"), "Expected a JSON object"),
    "index too deep": (lambda tmp: written(tmp / "x.safetensors.index.json", "[" * 10**6), "Expected a JSON file"),
    "missing shard": (
        lambda tmp: index(tmp, {"a": "model-2.safetensors"}),
        r"shard model-2\.safetensors .* is missing",
    ),
    "shard elsewhere": (lambda tmp: index(tmp, {"a": "../model-1.safetensors"}), "in its own folder"),
    "shard lacks a tensor": (lambda tmp: index(tmp, {"b": "model-1.safetensors"}), "The tensor b .* is not in"),
    "shards missing": (numbered_shard_alone, "Expected 3 shards .* found 2"),
    "name in two shards": (two_shards_with_the_same_name, "The tensor w is in both"),
    "empty pt": (lambda tmp: written(tmp / "a.pt", ""), "Expected a PyTorch state dict"),
    "garbage pt": (lambda tmp: written(tmp / "a.pt", b"\x80\x02garbage"), "Expected a PyTorch state dict"),
    "zip that is no pt": (lambda tmp: zipped(tmp / "a.pt"), "damaged or not one"),
    "truncated pt": (
        lambda tmp: written(tmp / "a.pt", saved(tmp / "b.pt", tiny_state()).read_bytes()[:999]),
        "damaged",
    ),
    "pickled module": (lambda tmp: saved(tmp / "a.pt", Tiny()), r"pickled object \(.*Tiny\).*dcmerge convert .*a\.pt NEW"),
    "pickled settings": (lambda tmp: saved(tmp / "a.pt", {"a": Namespace()}), r"\(argparse\.Namespace\)"),
    "old format": (
        lambda tmp: saved(tmp / "a.pt", tiny_state(), _use_new_zipfile_serialization=False),
        "before PyTorch 1.6",
    ),
    "bare tensor": (lambda tmp: saved(tmp / "a.pt", torch.ones(2)), "one tensor without a name"),
    "list of tensors": (lambda tmp: saved(tmp / "a.pt", [torch.ones(2)]), "got a list"),
    "state dict without tensors": (lambda tmp: saved(tmp / "a.pt", {"epoch": 3}), "got no tensor"),
    "tensor without data": (lambda tmp: saved(tmp / "a.pt", {"w": torch.ones(2, device="meta")}), "without data"),
    "tensor larger than its file": (
        lambda tmp: saved(tmp / "a.pt", {"w": torch.ones(1).expand(2**40)}),
        "claims more bytes",
    ),
    "a name for safetensors' own": (lambda tmp: saved(tmp / "a.pt", {"__metadata__": torch.ones(2)}), "called __metadata__"),
    "a name that is no text": (lambda tmp: saved(tmp / "a.pt", {"\ud800": torch.ones(2)}), r"no text of Unicode: \\ud800"),
    "a long name": (lambda tmp: saved(tmp / "a.pt", {"x" * 1001: torch.ones(2)}), "a name of 1001 characters"),
    "a long name, safetensors": (lambda tmp: single(tmp, {"x" * 1001: torch.ones(2)}), "a name of 1001 characters"),
    "100 dimensions": (lambda tmp: header(tmp, [1] * 100, 4), "has 100 dimensions"),
    "a dimension beyond all": (lambda tmp: header(tmp, [0, 2**62], 0), "has the shape"),
    "strides beyond all": (lambda tmp: header(tmp, [0, 2**40, 2**40], 0), "has the shape"),
    "LFS pointer": (lambda tmp: written(tmp / "a.safetensors", LFS), "a Git LFS pointer.*git lfs pull"),
    "LFS pointer pt": (lambda tmp: written(tmp / "a.pt", LFS), "a Git LFS pointer.*git lfs pull"),
    "LFS pointer json": (lambda tmp: written(tmp / "x.safetensors.index.json", LFS), "a Git LFS pointer.*git lfs pull"),
    "web page": (lambda tmp: written(tmp / "a.safetensors", "\n<!DOCTYPE html><title>404"), "a web page, not the file"),
    "web page pt": (lambda tmp: written(tmp / "a.bin", "<html>" * 9), "a web page, not the file"),
    "a server's error": (lambda tmp: written(tmp / "a.safetensors", '{"error":"Repository not found"}'), "message of a server"),
    "adapter without config": (adapter_without_config, r"expected an adapter_config\.json"),
}


@pytest.mark.parametrize(("build", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_sentence(tmp_path, build, message):
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint(build(tmp_path))
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert caught.value.__cause__ is None


def test_a_pickle_never_runs(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "hacked"),)

    torch.save({"w": Runs()}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"mkdir"):
        open_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "hacked").exists()


def test_size_limits(tmp_path, monkeypatch):
    saved(tmp_path / "a.pt", tiny_state())
    monkeypatch.setattr(state_dicts, "STATE_DICT_SIZE_LIMIT", 100)
    with pytest.raises(InputError, match="more than the limit of 100"):
        open_checkpoint(tmp_path / "a.pt")
    monkeypatch.setattr(paths, "JSON_SIZE_LIMIT", 10)
    with pytest.raises(InputError, match="at most 10 bytes"):
        open_checkpoint(written(tmp_path / "x.index.json", json.dumps({"weight_map": {}})))
