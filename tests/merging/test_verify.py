"""A merged file is read again: what is off is found, and what is right is not called off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import dcmerge
from dcmerge.errors import InputError
from dcmerge.merging.verify import Check, Verified, verify
from tests.builders import full_set, lora_set, random_deltas, random_factors
from tests.merging.output.builders import llama

NAME = "visual.mlp.c_fc.weight"


def changed(path: Path, **tensors: Tensor) -> Path:
    """The same file with other tensors, its recipe kept."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({**load_file(path), **tensors}, path, metadata=metadata)
    return path


def check(found: Verified, what: str) -> Check:
    (one,) = [one for one in found.checks if one.what == what]
    return one


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    dcmerge.merge(full_set(tmp_path, random_deltas(2)), "ties").save(tmp_path / "merged.safetensors", scale=0.7)
    return tmp_path / "merged.safetensors"


def test_a_sound_file(merged: Path) -> None:
    found = verify(merged)
    assert found.sound and check(found, "recipe").ok and "up to rounding" in check(found, "recipe").text
    assert set(found.layers) == set(load_file(merged)) and max(found.layers.values()) < 1e-6
    assert check(found, "size").ok and check(found, "numbers").ok


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_not_off(tmp_path: Path, dtype: str) -> None:
    merged = dcmerge.merge(full_set(tmp_path, random_deltas(2)), "tsv_m")
    merged.save(tmp_path / "merged.safetensors", dtype=dtype)
    assert verify(tmp_path / "merged.safetensors").sound


def test_a_weight_that_is_another(merged: Path) -> None:
    found = verify(changed(merged, **{NAME: load_file(merged)[NAME] + 0.01}))
    assert not found.sound and NAME in check(found, "recipe").text and found.layers[NAME] == pytest.approx(0.01, rel=1e-3)


def test_a_file_that_is_the_base(merged: Path) -> None:
    found = verify(changed(merged, **load_file(merged.parent / "base.safetensors")))
    assert not found.sound and "tensors are the base's although the recipe changes them" in check(found, "change").text


def test_nan_is_found_without_the_inputs(merged: Path) -> None:
    broken = load_file(merged)[NAME]
    broken[0, 0] = torch.nan
    changed(merged, **{NAME: broken})
    elsewhere = merged.parent / "elsewhere" / merged.name
    elsewhere.parent.mkdir()
    merged.rename(elsewhere)
    (elsewhere.parent.parent / "base.safetensors").unlink()
    found = verify(elsewhere)
    assert check(found, "recipe").ok is None and "the merge was not repeated" in check(found, "recipe").text
    assert check(found, "numbers").ok is False and not found.sound


def test_a_mask_may_be_infinite(tmp_path: Path) -> None:
    """OpenAI's archives hold CLIP's attention mask, which is -inf above the diagonal."""
    mask = torch.full((3, 3), float("-inf")).triu(1)
    for place, name in enumerate(("base", "a")):
        save_file({"layers.0.weight": torch.eye(4) + place, "attn_mask": mask}, tmp_path / f"{name}.safetensors")
    vectors = dcmerge.TaskVectors.open(tmp_path / "base.safetensors", {"a": tmp_path / "a.safetensors"})
    dcmerge.merge(vectors, "average").save(tmp_path / "merged.safetensors")
    found = verify(tmp_path / "merged.safetensors")
    assert found.sound and check(found, "numbers").ok


def test_an_adapter(tmp_path: Path) -> None:
    vectors = lora_set(tmp_path, {"a": random_factors(0), "b": random_factors(1)})
    dcmerge.merge(vectors, "average").save_adapter(tmp_path / "merged")
    assert verify(tmp_path / "merged").sound
    path = tmp_path / "merged" / "adapter_model.safetensors"
    changed(path, **{name: 2 * value for name, value in load_file(path).items()})
    found = verify(tmp_path / "merged")
    assert not found.sound and "of its energy" in check(found, "recipe").text


def test_a_folder_is_loaded_and_run(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "a", "b")):
        llama(seed, tie_word_embeddings=True).save_pretrained(tmp_path / name)
    vectors = dcmerge.TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "ab"})
    dcmerge.merge(vectors, "average").save(tmp_path / "merged")
    found = verify(tmp_path / "merged")
    assert found.sound and "transformers loads it and runs it" in check(found, "loading").text
    assert check(found, "vocabulary").ok
    path = tmp_path / "merged" / "model.safetensors"
    kept = {name: value for name, value in load_file(path).items() if "layers.1" not in name}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(kept, path, metadata=metadata)
    found = verify(tmp_path / "merged")
    assert not found.sound and "missing" in check(found, "recipe").text
    assert check(found, "loading").ok is False and check(found, "size").ok is False


def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match="holds no recipe"):
        verify(tmp_path / "plain.safetensors")
