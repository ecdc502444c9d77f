"""Tensors under several names are merged once, and written as often as the base names them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dcmerge import TaskVectors, merge
from tests.builders import random_factors, random_tensors, write, write_adapter

TABLE, HEAD, REST = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.w"
SHAPES = {TABLE: (6, 4), REST: (4, 4), "logit_scale": ()}


def weights(seed: int, *, head: bool = False, **more: Tensor) -> dict[str, Tensor]:
    own = random_tensors(seed, SHAPES)
    return {**own, **({HEAD: own[TABLE].clone()} if head else {}), **more}


def opened(folder: Path, base: dict[str, Tensor], *experts: dict[str, Tensor], settings: dict | None = None) -> TaskVectors:
    place = folder / "base"
    write(place / "model.safetensors", base)
    if settings is not None:
        (place / "config.json").write_text(json.dumps(settings))
    named = {f"e{number}": write(folder / f"e{number}.safetensors", own) for number, own in enumerate(experts)}
    return TaskVectors.open(place, named)


def written(vectors: TaskVectors, folder: Path) -> dict[str, Tensor]:
    merge(vectors, "average").save(folder / "out.safetensors")
    return load_file(folder / "out.safetensors")


@pytest.mark.parametrize("holders", [(True, False, False), (True, True, False), (True, True, True), (False, True, False)])
def test_a_copy_is_merged_once_whichever_files_name_it(tmp_path: Path, holders: tuple[bool, bool, bool]) -> None:
    files = [weights(seed, head=head) for seed, head in enumerate(holders)]
    vectors = opened(tmp_path, *files)
    assert set(vectors.parameters) == {TABLE, REST, "logit_scale"} and vectors.report.copies == {HEAD: TABLE}
    found = written(vectors, tmp_path)
    assert set(found) == set(files[0]), "as many parameters as the base"
    mean = (files[1][TABLE] + files[2][TABLE]) / 2
    for name in {TABLE, HEAD} & set(found):
        torch.testing.assert_close(found[name], mean, rtol=1e-5, atol=1e-6)


def test_heads_of_their_own_are_no_copies(tmp_path: Path) -> None:
    """Equal in the base, trained apart: both are merged."""
    files = [weights(0, head=True), weights(1, head=True), weights(2, **{HEAD: torch.ones(6, 4)})]
    vectors = opened(tmp_path, *files)
    assert set(vectors.parameters) == {TABLE, REST, HEAD, "logit_scale"} and not vectors.report.copies
    torch.testing.assert_close(written(vectors, tmp_path)[HEAD], (files[1][TABLE] + 1) / 2, rtol=1e-5, atol=1e-6)


def test_the_settings_decide_where_they_tell(tmp_path: Path) -> None:
    files = [weights(0, head=True), weights(1), weights(2, **{HEAD: torch.ones(6, 4)})]
    assert opened(tmp_path, *files, settings={"tie_word_embeddings": True}).report.copies == {HEAD: TABLE}


def test_equal_constants_are_no_copies(tmp_path: Path) -> None:
    zeros = torch.zeros(6, 4)
    vectors = opened(tmp_path, {**weights(0), "extra.w": zeros, TABLE: zeros.clone()}, weights(1), weights(2))
    assert not vectors.report.copies


def test_a_file_that_names_the_other_one_of_the_pair(tmp_path: Path) -> None:
    """safetensors keeps one name of a shared tensor: here the head's in the base, the embedding's in the expert."""
    base = {HEAD: torch.zeros(6, 4), REST: torch.zeros(4, 4)}
    vectors = opened(tmp_path, base, weights(1))
    assert set(vectors.parameters) == {HEAD, REST}
    torch.testing.assert_close(written(vectors, tmp_path)[HEAD], weights(1)[TABLE])


def test_deltas_of_one_tied_weight_are_added(tmp_path: Path) -> None:
    """An adapter of the head and of the embeddings, whose base holds one table: base + mean of (B A) of both."""
    shapes = {TABLE: (6, 4), HEAD: (6, 4)}
    adapters = [random_factors(seed, shapes=shapes) for seed in (1, 2)]
    base = weights(0)
    source = write(tmp_path / "base.safetensors", base)
    folders = {f"e{n}": write_adapter(tmp_path / f"e{n}", own) for n, own in enumerate(adapters)}
    vectors = TaskVectors.open(source, folders)
    assert set(vectors.parameters) == {TABLE, HEAD}
    deltas = [sum(B @ A for B, A in own.values()) for own in adapters]
    found = written(vectors, tmp_path)
    assert set(found) == set(base)
    torch.testing.assert_close(found[TABLE], base[TABLE] + (deltas[0] + deltas[1]) / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[REST], base[REST])
