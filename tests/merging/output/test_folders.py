"""A merged folder is what transformers loads as base + α · merged, in the base's own shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPVisionModel, LlamaForCausalLM

import dcmerge
from dcmerge import InputError, Merged, TaskVectors
from dcmerge.checkpoints import open_checkpoint
from dcmerge.merging.recipe import METADATA_KEY
from tests.builders import full_set, random_deltas
from tests.merging.output.builders import clip_vision, llama, outputs, summed, with_deltas, write_peft


def saved(model: nn.Module, folder: Path, **how: Any) -> Path:
    model.save_pretrained(str(folder), **how)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "modeling_own.py").write_text("raise SystemExit")
    (folder / "optimizer.pt").write_bytes(b"pickle")
    return folder


@pytest.fixture
def sharded(tmp_path: Path) -> TaskVectors:
    """A language model of several shards and two experts of it."""
    base = saved(llama(), tmp_path / "base", max_shard_size="8KB")
    experts = {f"task{t}": saved(llama(t + 1), tmp_path / f"task{t}") for t in range(2)}
    return TaskVectors.open(base, experts)


def test_transformers_loads_the_merged_shards(sharded: TaskVectors, tmp_path: Path) -> None:
    merged = dcmerge.merge(sharded, "task_arithmetic")
    written = merged.save(tmp_path / "out", scale=0.3)
    shards = {path.name for path in (tmp_path / "base").glob("*.safetensors")}
    assert len(shards) > 2 and {path.name for path in (tmp_path / "out").glob("*.safetensors")} == shards
    index = "model.safetensors.index.json"
    found, wanted = (json.loads((tmp_path / name / index).read_text()) for name in ("out", "base"))
    assert found["weight_map"] == wanted["weight_map"] and found["metadata"]["total_size"] == wanted["metadata"]["total_size"]
    again = LlamaForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(outputs(again), outputs(with_deltas(llama(), dict(merged.deltas), 0.3)), atol=1e-5, rtol=1e-5)
    assert set(written.files) == {*shards, index, "config.json", "generation_config.json", "tokenizer.json", "README.md"}
    assert any("not copied" in note and "modeling_own.py, optimizer.pt" in note for note in written.notes)
    for shard in shards:
        with safe_open(tmp_path / "out" / shard, "pt") as file:
            assert json.loads(file.metadata()[METADATA_KEY])["scale"] == 0.3


def test_the_stream_writes_what_the_held_merge_does(sharded: TaskVectors, tmp_path: Path) -> None:
    dcmerge.merge(sharded, "dc_merge").save(tmp_path / "held")
    dcmerge.merge_to(sharded, "dc_merge", dcmerge.Target(tmp_path / "streamed"))
    names = {path.name for path in (tmp_path / "held").iterdir()}
    assert names == {path.name for path in (tmp_path / "streamed").iterdir()}
    assert all((tmp_path / "held" / name).read_bytes() == (tmp_path / "streamed" / name).read_bytes() for name in names)


def test_old_pickled_shards_become_safetensors_that_load(tmp_path: Path) -> None:
    base = saved(llama(), tmp_path / "base")
    state = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    halves = list(state)[::2], list(state)[1::2]
    for name, half in zip(names, halves, strict=True):
        torch.save({key: state[key] for key in half}, base / name)
    weight_map = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    (base / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    vectors = TaskVectors.open(base, {"a": saved(llama(1), tmp_path / "a")})
    written = dcmerge.merge(vectors, "average").save(tmp_path / "out")
    assert {"model-00001-of-00002.safetensors", "model.safetensors.index.json"} <= set(written.files)
    assert any("PyTorch state dict" in note for note in written.notes) and not any(".bin" in name for name in written.files)
    again = LlamaForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(outputs(again), outputs(llama(1)), atol=1e-5, rtol=1e-5)


def test_shards_without_an_index_get_one(tmp_path: Path) -> None:
    base = saved(llama(), tmp_path / "base", max_shard_size="8KB")
    (base / "model.safetensors.index.json").unlink()
    vectors = TaskVectors.open(base, {"a": saved(llama(1), tmp_path / "a")})
    dcmerge.merge(vectors, "average").save(tmp_path / "out")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(outputs(again), outputs(llama(1)), atol=1e-5, rtol=1e-5)


def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    base = saved(llama(tie_word_embeddings=True), tmp_path / "base")
    experts = {f"task{t}": saved(llama(t + 1, tie_word_embeddings=True), tmp_path / f"task{t}") for t in range(2)}
    merged = dcmerge.merge(TaskVectors.open(base, experts), "average")
    merged.save(tmp_path / "out")
    assert "lm_head.weight" not in load_file(tmp_path / "out/model.safetensors")
    wanted = llama(tie_word_embeddings=True)
    with torch.no_grad():
        for name, delta in merged.deltas.items():
            wanted.get_parameter(f"model.{name}" if not name.startswith("model.") else name).add_(delta)
    again = LlamaForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(outputs(again), outputs(wanted), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_adapters_become_a_full_model_that_transformers_loads(tmp_path: Path) -> None:
    model = clip_vision()
    base = saved(model, tmp_path / "base")
    settings = ({"target_modules": ["q_proj", "fc1"]}, {"target_modules": ["q_proj", "v_proj"], "r": 3})
    folders = [write_peft(tmp_path / f"task{t}", model, t, **own) for t, own in enumerate(settings)]
    merged = dcmerge.merge(TaskVectors.open(base, {folder.name: folder for folder in folders}), "task_arithmetic")
    merged.save(tmp_path / "out")
    again = CLIPVisionModel.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(outputs(again), outputs(summed(model, folders, 1.0)), atol=1e-5, rtol=1e-5)


def test_a_base_of_one_file_gives_a_folder_of_one_file_without_its_neighbours(tmp_path: Path) -> None:
    vectors = full_set(tmp_path, random_deltas(2))
    (tmp_path / "config.json").write_text("{}")
    written = dcmerge.merge(vectors, "average").save(tmp_path / "out")
    assert written.files == ("README.md", "model.safetensors")
    assert open_checkpoint(tmp_path / "out").infos.keys() == vectors.base.infos.keys()


def test_an_earlier_merge_is_replaced_where_that_is_asked_for_and_nothing_else_is(tmp_path: Path) -> None:
    merged = dcmerge.merge(full_set(tmp_path, random_deltas(2)), "average")
    merged.save(tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        merged.save(tmp_path / "out")
    merged.save(tmp_path / "out", scale=2.0, replace=True)
    assert "2 (given)" in (tmp_path / "out/README.md").read_text().replace("\\", "")
    (tmp_path / "out/thesis.doc").write_text("precious")
    with pytest.raises(InputError, match="not a folder that a merge wrote .it holds thesis.doc"):
        merged.save(tmp_path / "out", replace=True)
    assert (tmp_path / "out/thesis.doc").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert merged.save(tmp_path / "empty").files
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


class Broken(dict):
    def items(self) -> Iterator[tuple[str, Any]]:
        yield next(iter(super().items()))
        raise RuntimeError("no memory left")


def test_a_folder_that_fails_half_way_leaves_nothing_behind(sharded: TaskVectors, tmp_path: Path) -> None:
    merged = dcmerge.merge(sharded, "average")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(RuntimeError, match="no memory left"):
        Merged(merged.vectors, merged.method, merged.parameters, Broken(merged.deltas)).save(out / "new")
    merged.save(out / "old")
    before = {path.name: path.read_bytes() for path in (out / "old").iterdir()}
    with pytest.raises(RuntimeError, match="no memory left"):
        Merged(merged.vectors, merged.method, merged.parameters, Broken(merged.deltas)).save(out / "old", replace=True)
    assert [path.name for path in out.iterdir()] == ["old"]
    assert {path.name: path.read_bytes() for path in (out / "old").iterdir()} == before


def test_a_delta_alone_is_one_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one file .safetensors for the delta alone"):
        dcmerge.merge(full_set(tmp_path, random_deltas(2)), "average").save(tmp_path / "out", delta_only=True)


def test_settings_behind_a_link_are_copied_only_from_the_folder_or_its_cache(sharded: TaskVectors, tmp_path: Path) -> None:
    base, secret = tmp_path / "base", tmp_path / "secret.json"
    secret.write_text('{"password": "x"}')
    (base / "vocab.json").symlink_to(secret)
    (base / "own.json").write_text("{}")
    (base / "merges.txt").symlink_to(base / "own.json")
    written = dcmerge.merge(sharded, "average").save(tmp_path / "out")
    assert not (tmp_path / "out" / "vocab.json").exists() and (tmp_path / "out" / "merges.txt").read_text() == "{}"
    assert any("not copied" in note and "vocab.json" in note for note in written.notes)


def test_settings_of_a_download_cache_are_copied(tmp_path: Path) -> None:
    blobs, base = tmp_path / "models--org--name" / "blobs", tmp_path / "models--org--name" / "snapshots" / "abc"
    saved(llama(), base)
    blobs.mkdir()
    (base / "tokenizer.json").rename(blobs / "0123")
    (base / "tokenizer.json").symlink_to(blobs / "0123")
    vectors = TaskVectors.open(base, {"one": saved(llama(1), tmp_path / "one")})
    dcmerge.merge(vectors, "average").save(tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
