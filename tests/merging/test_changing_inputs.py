"""An expert that changes while it is merged: one sentence and no output, never a mixture or the hash of another file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dcmerge import InputError, Recipe, TaskVectors, merge
from dcmerge.checkpoints.seen import content_digest
from dcmerge.merging.merge import merge_to_file
from tests.builders import full_set, random_deltas, random_tensors

CHANGED = "has changed since it was opened"


@pytest.fixture
def vectors(tmp_path: Path) -> TaskVectors:
    return full_set(tmp_path / "in", random_deltas(2), random_tensors(0))


def others(path: Path) -> dict[str, torch.Tensor]:
    """Values of a later step of the same training: the same names and shapes."""
    return {name: value + 1 for name, value in load_file(path).items()}


def overwritten(path: Path) -> None:
    with open(path, "r+b") as file:
        save_file(others(path), path.with_suffix(".new"))
        file.write(path.with_suffix(".new").read_bytes())
    os.utime(path)


def replaced(path: Path) -> None:
    save_file(others(path), path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


@pytest.mark.parametrize("change", [overwritten, replaced])
@pytest.mark.parametrize("moment", [0, 1, 3])
@pytest.mark.parametrize("slug", ["average", "dc_merge"])
def test_a_change_ends_the_merge_without_an_output(vectors: TaskVectors, tmp_path: Path, slug: str, moment: int, change) -> None:
    file, out = vectors.experts["task1"].path, tmp_path / "out"
    out.mkdir()
    told = []

    def tell(share: float, text: str) -> None:
        told.append(text)
        if len(told) == moment + 1:
            change(file)

    with pytest.raises(InputError, match=rf"task1\.safetensors {CHANGED}"):
        merge_to_file(vectors, slug, out / "m.safetensors", progress=tell)
    assert len(told) > moment and list(out.iterdir()) == []


def test_what_was_hashed_is_what_was_merged(vectors: TaskVectors, tmp_path: Path) -> None:
    file = vectors.experts["task1"].path
    before = content_digest(file)
    assert vectors.fingerprint
    merged = merge(vectors, "average")
    replaced(file)
    merged.save(tmp_path / "m.safetensors")  # read and hashed before the change: it is the old one, and says so
    assert Recipe.open(tmp_path / "m.safetensors").inputs["task1"]["sha256"] == before
    assert content_digest(file) != before


def test_deltas_in_memory_get_no_hash_of_a_later_file(vectors: TaskVectors, tmp_path: Path) -> None:
    merged = merge(vectors, "average")
    replaced(vectors.experts["task1"].path)
    with pytest.raises(InputError, match=CHANGED):
        merged.save(tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()
