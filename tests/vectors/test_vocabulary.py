"""Vocabularies that differ: the rows that all have are merged, by token where tokenizers tell, and the rest is a choice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from dcmerge import Fit, TaskVectors, merge
from tests.builders import random_tensors, write

TABLE, HEAD, REST = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.w"
CONFIG = {"vocab_size": 4, "tie_word_embeddings": False}


def weights(seed: int, rows: int) -> dict[str, Tensor]:
    return random_tensors(seed, {TABLE: (rows, 3), HEAD: (rows, 3), REST: (5, 5)})


def model(folder: Path, own: dict[str, Tensor], tokens: Sequence[str] = ()) -> Path:
    write(folder / "model.safetensors", own)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": len(own[TABLE])}))
    if tokens:
        vocabulary = {token: number for number, token in enumerate(tokens)}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    return folder


def opened(folder: Path, base: Path, vocabulary: str = "base", **experts: Path) -> TaskVectors:
    return TaskVectors.open(base, experts, fit=Fit(vocabulary=vocabulary))


def test_by_number_without_tokenizers(tmp_path: Path) -> None:
    own = [weights(0, 4), weights(1, 6), weights(2, 3)]
    base, wide, narrow = (model(tmp_path / name, one) for name, one in zip(("base", "wide", "narrow"), own, strict=True))
    vectors = opened(tmp_path, base, wide=wide, narrow=narrow)
    first = vectors.report.findings[0]
    assert first.level == "warning" and "wide: another vocabulary, 6 tokens where the base has 4" in first.text
    assert "matched by number" in first.text and "3 rows that all have are merged" in first.text
    merge(vectors, "average").save(tmp_path / "out", scale=1.0)
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name in (TABLE, HEAD):
        mean = (own[1][name][:3] + own[2][name][:3]) / 2
        torch.testing.assert_close(found[name], torch.cat([mean, own[0][name][3:]]))


def test_by_token_where_all_have_a_tokenizer(tmp_path: Path) -> None:
    """The expert has b and a the other way round, and a new token in the place of the last."""
    own = [weights(0, 4), weights(1, 4)]
    base = model(tmp_path / "base", own[0], "abcd")
    expert = model(tmp_path / "expert", own[1], "bacx")
    vectors = opened(tmp_path, base, expert=expert)
    assert "matched by token: 3 rows" in vectors.report.findings[0].text
    merge(vectors, "average").save(tmp_path / "out", scale=1.0)
    found = load_file(tmp_path / "out" / "model.safetensors")[TABLE]
    table = own[1][TABLE]
    torch.testing.assert_close(found, torch.stack([table[1], table[0], table[2], own[0][TABLE][3]]))


def test_the_union_has_every_token_once(tmp_path: Path) -> None:
    own = [weights(0, 4), weights(1, 6), weights(2, 5)]
    base = model(tmp_path / "base", own[0], "abcd")
    first, second = model(tmp_path / "first", own[1], "abcdxy"), model(tmp_path / "second", own[2], "abcdy")
    vectors = opened(tmp_path, base, "union", first=first, second=second)
    done = merge(vectors, "average").save(tmp_path / "out", scale=1.0)
    assert any("6 tokens, 2 more than the base's" in note for note in done.notes)
    found = load_file(tmp_path / "out" / "model.safetensors")[TABLE]
    common = (own[1][TABLE][:4] + own[2][TABLE][:4]) / 2
    new = torch.stack([own[1][TABLE][4], (own[1][TABLE][5] + own[2][TABLE][4]) / 2])
    torch.testing.assert_close(found, torch.cat([common, new]))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 6
    added = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["added_tokens"]
    assert [(token["content"], token["id"]) for token in added] == [("x", 4), ("y", 5)]


def test_equal_vocabularies_are_not_touched(tmp_path: Path) -> None:
    base, expert = model(tmp_path / "base", weights(0, 4), "abcd"), model(tmp_path / "expert", weights(1, 4), "abcd")
    assert not opened(tmp_path, base, "union", expert=expert).report.findings


def test_the_choice_is_in_the_recipe_and_is_repeated(tmp_path: Path) -> None:
    base, expert = model(tmp_path / "base", weights(0, 4)), model(tmp_path / "expert", weights(1, 6))
    merged = merge(opened(tmp_path, base, "union", expert=expert), "average")
    recipe = merged.recipe(1.0)
    assert recipe.fit == {"vocabulary": "union"} and "another vocabulary" in recipe.left_out[0]
