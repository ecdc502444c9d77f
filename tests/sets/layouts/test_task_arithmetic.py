"""The layouts of task arithmetic and its successors: one folder for each data set, the base beside the experts or above."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcmerge.errors import InputError
from dcmerge.sets.layouts import find_sets
from dcmerge.vectors.task_vectors import TaskVectors
from tests.sets.layouts.builders import TASKS, clip, image_encoder, moved, old_task_vectors, save, task_vectors


def test_task_vectors_with_one_of_the_equal_bases(tmp_path: Path) -> None:
    (found,) = find_sets(task_vectors(tmp_path))
    place = tmp_path / "ViT-B-32"
    assert (found.layout, found.folder, found.lacks) == ("task_vectors", place, "")
    assert found.base == place / "DTDVal" / "nonlinear_zeroshot.pt"
    assert dict(found.experts) == {task: place / f"{task}Val" / "nonlinear_finetuned.pt" for task in TASKS}
    assert dict(found.heads) == {task: place / f"head_{task}Val.pt" for task in TASKS}
    (other,) = found.skipped
    assert other.path == place / "MNISTVal" / "nonlinear_zeroshot.pt"
    assert other.reason == "holds the same weights as DTDVal/nonlinear_zeroshot.pt, which is used"
    vectors = TaskVectors.open(found.base, found.experts)
    assert vectors.tasks == TASKS and "model_name" not in vectors.parameters
    delta = vectors.delta("visual.proj", "DTD")
    torch.testing.assert_close(delta, moved(image_encoder(clip(0)), 1)["model.visual.proj"] - vectors.base_tensor("visual.proj"))


def test_several_models_are_several_sets(tmp_path: Path) -> None:
    task_vectors(task_vectors(tmp_path), "ViT-L-14")
    assert [found.folder.name for found in find_sets(tmp_path)] == ["ViT-B-32", "ViT-L-14"]
    (one,) = find_sets(tmp_path / "ViT-L-14")
    assert one.title == "Task vectors of ViT-L-14"


def test_bases_that_differ_are_not_guessed_among(tmp_path: Path) -> None:
    place = task_vectors(tmp_path) / "ViT-B-32"
    save(place / "MNISTVal" / "nonlinear_zeroshot.pt", moved(image_encoder(clip(0)), 9))
    (found,) = find_sets(tmp_path)
    assert found.base is None and "hold different weights" in found.notes[0] and "as the base" in found.lacks
    with pytest.raises(InputError, match="as the base"):
        found.checked()
    named = found.with_base(place / "DTDVal" / "nonlinear_zeroshot.pt").checked()
    assert TaskVectors.open(named.base, named.experts).tasks == TASKS


def test_equal_tensors_in_another_order_of_saving_are_told_by_their_checksums(tmp_path: Path) -> None:
    """The archive's inner folder is called after the file, so equal bases differ in their bytes."""
    place = task_vectors(tmp_path) / "ViT-B-32"
    save(place / "zeroshot.pt", {**image_encoder(clip(0)), "model_name": "another text"})
    (found,) = find_sets(tmp_path)
    assert found.base == place / "zeroshot.pt" and len(found.skipped) == 2


def test_names_without_nonlinear_and_linearised_models(tmp_path: Path) -> None:
    place = task_vectors(tmp_path) / "ViT-B-32"
    for task in TASKS:
        for name in ("finetuned", "zeroshot"):
            (place / f"{task}Val" / f"nonlinear_{name}.pt").rename(place / f"{task}Val" / f"{name}.pt")
    save(place / "DTDVal" / "linear_finetuned.pt", {"w": torch.ones(2)})
    (found,) = find_sets(tmp_path)
    assert found.layout == "task_vectors" and found.experts["DTD"].name == "finetuned.pt"
    assert found.base.name == "zeroshot.pt"
    reasons = {skipped.path.name: skipped.reason for skipped in found.skipped}
    assert "linearised" in reasons["linear_finetuned.pt"]


def test_both_kinds_of_expert_beside_each_other(tmp_path: Path) -> None:
    place = task_vectors(tmp_path) / "ViT-B-32"
    save(place / "DTDVal" / "finetuned.pt", moved(image_encoder(clip(0)), 4))
    (found,) = find_sets(tmp_path)
    assert found.experts["DTD"].name == "nonlinear_finetuned.pt"
    assert "is another expert of DTD; nonlinear_finetuned.pt is used" in [skipped.reason for skipped in found.skipped]


def test_without_a_base_it_says_which_name_was_expected(tmp_path: Path) -> None:
    for file in task_vectors(tmp_path).rglob("nonlinear_zeroshot.pt"):
        file.unlink()
    (found,) = find_sets(tmp_path)
    assert found.base is None and "no nonlinear_zeroshot or zeroshot was found" in found.notes[0]


def test_pickled_modules_are_found_but_never_opened(tmp_path: Path) -> None:
    (found,) = find_sets(old_task_vectors(tmp_path))
    place = tmp_path / "ViT-B-32"
    assert found.layout == "old_task_vectors" and found.base == place / "zeroshot.pt"
    assert set(found.convert) == {place / "zeroshot.pt", *(place / task / "finetuned.pt" for task in TASKS)}
    assert dict(found.heads) == {task: place / f"head_{task}.pt" for task in TASKS}
    old = place / "DTD" / "finetuned.pt"
    with pytest.raises(InputError, match="python -m dcmerge convert") as refusal:
        found.checked()
    assert f"{old} {old.with_suffix('.safetensors')}" in str(refusal.value) and "2 more" in str(refusal.value)


def test_a_converted_file_takes_the_place_of_the_pickled_one(tmp_path: Path) -> None:
    (found,) = find_sets(old_task_vectors(tmp_path, convert=True))
    assert {path.suffix for path in found.checkpoints} == {".safetensors"}
    assert TaskVectors.open(found.base, found.checked().experts).tasks == TASKS
    reasons = {str(skipped.path.relative_to(found.folder)): skipped.reason for skipped in found.skipped}
    assert reasons["zeroshot.pt"] == "has the same name as zeroshot.safetensors, which is used instead"
    assert reasons["old.pkl"] == "is no checkpoint"


def test_a_damaged_expert_stays_in_the_set_and_is_named(tmp_path: Path) -> None:
    path = task_vectors(tmp_path) / "ViT-B-32" / "DTDVal" / "nonlinear_finetuned.pt"
    path.write_bytes(path.read_bytes()[:-300])
    (found,) = find_sets(tmp_path)
    assert "DTD" in found.experts and not found.convert
    assert any("nonlinear_finetuned.pt" in note and "damaged" in note for note in found.notes)
    with pytest.raises(InputError, match="damaged"):
        TaskVectors.open(found.base, found.experts)
