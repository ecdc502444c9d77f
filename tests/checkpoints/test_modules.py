"""Folders of sentence-transformers: one checkpoint of the model and its trained modules, written back as it lay there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dcmerge
from dcmerge.checkpoints import Roots, open_checkpoint
from dcmerge.merging.verify import verify
from dcmerge.sets.layouts import find_sets

MODEL = {"embeddings.word_embeddings.weight": (9, 8), "encoder.layer.0.attention.self.query.weight": (8, 8)}
DENSE = {"linear.weight": (4, 8), "linear.bias": (4,)}


def random(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def write_model(folder: Path, seed: int, *, old: bool = False) -> Path:
    """As sentence-transformers 2 and later write it, or with the model in a folder of its own, as version 1 did."""
    model, dense = folder / "0_Transformer" if old else folder, folder / "2_Dense"
    for one in (model, dense, folder / "1_Pooling"):
        one.mkdir(parents=True, exist_ok=True)
    paths = ["0_Transformer" if old else "", "1_Pooling", "2_Dense"]
    modules = [{"idx": place, "name": str(place), "path": path, "type": "x"} for place, path in enumerate(paths)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 8}')
    (dense / "config.json").write_text('{"in_features": 8, "out_features": 4}')
    (model / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    if old:
        torch.save(random(MODEL, seed), model / "pytorch_model.bin")
        torch.save(random(DENSE, seed + 10), dense / "pytorch_model.bin")
    else:
        save_file(random(MODEL, seed), model / "model.safetensors")
        save_file(random(DENSE, seed + 10), dense / "model.safetensors")
    return folder


@pytest.mark.parametrize("old", [False, True])
def test_a_model_and_its_modules_are_one_checkpoint(old: bool, tmp_path: Path) -> None:
    opened = open_checkpoint(write_model(tmp_path / "model", 0, old=old))
    assert {*opened.infos} == {*MODEL, *(f"2_Dense.{name}" for name in DENSE)}
    assert torch.equal(opened.tensor("2_Dense.linear.bias"), random(DENSE, 10)["linear.bias"])
    assert torch.equal(opened.tensor([*MODEL][0]), random(MODEL, 0)[[*MODEL][0]])


@pytest.mark.parametrize("old", [False, True])
def test_a_set_is_found_merged_and_written_as_the_base_lies_there(old: bool, tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "cats", "dogs")):
        write_model(tmp_path / "set" / name, seed, old=old)
    (found,) = find_sets(tmp_path / "set")
    assert {*found.experts} == {"cats", "dogs"} and found.base == tmp_path / "set" / "base" and not found.skipped
    vectors = dcmerge.TaskVectors.open(found.base, found.experts)
    dcmerge.merge(vectors, "average").save(tmp_path / "out")
    model, dense = tmp_path / "out" / ("0_Transformer" if old else ""), tmp_path / "out" / "2_Dense"
    for path, shapes, add in ((model, MODEL, 0), (dense, DENSE, 10)):
        wanted = {name: (random(shapes, 1 + add)[name] + random(shapes, 2 + add)[name]) / 2 for name in shapes}
        got = load_file(path / "model.safetensors")
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(got[name], value)
        assert (path / "config.json").is_file()
    assert (tmp_path / "out" / "modules.json").is_file() and (tmp_path / "out" / "1_Pooling" / "config.json").is_file()
    assert verify(tmp_path / "out", search=[str(tmp_path / "set")], forward=False).sound
    dcmerge.merge(vectors, "average").save(tmp_path / "out", replace=True)
    (tmp_path / "out" / "2_Dense" / "mine.txt").write_text("x")
    with pytest.raises(dcmerge.InputError, match="2_Dense/mine.txt"):
        dcmerge.merge(vectors, "average").save(tmp_path / "out", replace=True)


def test_a_plain_model_is_the_base_of_one_with_modules(tmp_path: Path) -> None:
    """What the base has no module for is left out."""
    for seed, name in enumerate(("cats", "dogs"), start=1):
        write_model(tmp_path / name, seed)
    save_file(random(MODEL, 0), tmp_path / "base.safetensors")
    vectors = dcmerge.TaskVectors.open(tmp_path / "base.safetensors", {name: tmp_path / name for name in ("cats", "dogs")})
    assert {*vectors.parameters} == {*MODEL}
    assert any("2_Dense.linear" in finding.text for finding in vectors.report.findings)


def test_a_link_in_a_module_does_not_leave_the_roots(tmp_path: Path) -> None:
    secret = save_secret(tmp_path)
    root = tmp_path / "root"
    for seed, name in enumerate(("base", "cats", "dogs")):
        write_model(root / name, seed)
    linked = root / "cats" / "2_Dense" / "model.safetensors"
    linked.unlink()
    linked.symlink_to(secret)
    roots = Roots([root])
    with pytest.raises(dcmerge.InputError, match=r"cats/2_Dense/model.safetensors is a link that leaves"):
        roots.resolve("cats")
    assert roots.resolve("dogs") == root / "dogs" and "dogs" in roots.checkpoints()
    (found,) = find_sets(root, roots)
    assert {*found.experts} == {"dogs"}


def save_secret(folder: Path) -> Path:
    save_file(random(DENSE, 99), folder / "secret.safetensors")
    return folder / "secret.safetensors"


def test_sentence_transformers_itself_loads_the_merge(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    parts = pytest.importorskip("sentence_transformers.models")
    import transformers as tf

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(30))]
    config = tf.BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    tf.BertModel(config).save_pretrained(tmp_path / "bert")
    tf.BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(tmp_path / "bert")
    experts: list[Any] = []
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(0)
        model = library.SentenceTransformer(
            modules=[parts.Transformer(str(tmp_path / "bert")), parts.Pooling(8), parts.Dense(8, 4)], device="cpu"
        )
        torch.manual_seed(seed)
        with torch.no_grad():
            for value in model.parameters() if seed else ():
                value.add_(0.1 * torch.randn_like(value))
        model.save(str(tmp_path / name))
        experts.append(model)
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "ab"})
    dcmerge.merge(vectors, "average").save(tmp_path / "out")
    merged = library.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    for one, *own in zip(merged.parameters(), *(model.parameters() for model in experts[1:]), strict=True):
        torch.testing.assert_close(one.double(), torch.stack([value.double() for value in own]).mean(dim=0), rtol=0, atol=1e-6)
    assert merged.encode(["w1 w2"]).shape == (1, 4)
