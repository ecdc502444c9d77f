"""Models beside each other: open_clip's files, and any others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dcmerge.sets.layouts import find_sets, search
from dcmerge.vectors.task_vectors import TaskVectors
from tests.builders import TOWER, random_tensors, write
from tests.sets.layouts.builders import TASKS, adapter, clip, moved, open_clip_models, peft_with_base, plain, save, vision_model


@pytest.mark.parametrize("base", ["base", "zeroshot", "pretrained"])
def test_open_clip_files(tmp_path: Path, base: str) -> None:
    (found,) = find_sets(open_clip_models(tmp_path, base=base))
    assert (found.layout, found.base, found.folder) == ("open_clip", tmp_path / f"{base}.pt", tmp_path)
    assert sorted(found.experts) == list(TASKS)


def test_image_towers_beside_a_whole_clip(tmp_path: Path) -> None:
    (found,) = find_sets(open_clip_models(tmp_path, text=False))
    vectors = TaskVectors.open(found.base, found.experts)
    assert vectors.parameters and all(name.startswith("visual.") for name in vectors.parameters)
    assert [f.what for f in vectors.report.findings] == ["tower"]


def test_masks_of_old_versions_do_not_become_nan(tmp_path: Path) -> None:
    open_clip_models(tmp_path)
    mask = torch.full((4, 4), -torch.inf).triu(1)
    for path in tmp_path.glob("*.pt"):
        save(path, {**torch.load(path, weights_only=True), "attn_mask": mask})
    (found,) = find_sets(tmp_path)
    vectors = TaskVectors.open(found.base, found.experts)
    assert "attn_mask" not in vectors.parameters
    assert all(torch.isfinite(vectors.delta(name, "DTD")).all() for name in vectors.parameters)
    (finding,) = (f for f in vectors.report.findings if f.what == "buffer")
    assert finding.parameters == ("attn_mask",) and "kept from the base" in finding.text


def test_hub_folders_of_open_clip(tmp_path: Path) -> None:
    weights = clip(0).state_dict()
    for seed, name in enumerate(("base", *TASKS)):
        place = tmp_path / name
        place.mkdir()
        own = moved(weights, seed) if seed else weights
        save_file({n: v.contiguous() for n, v in own.items()}, place / "open_clip_model.safetensors")
        (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": TOWER}))
    (found,) = find_sets(tmp_path)
    assert found.layout == "open_clip" and found.base == tmp_path / "base" and sorted(found.experts) == list(TASKS)


def test_plain_files_and_what_does_not_belong(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    write(tmp_path / "labels.safetensors", {"labels": torch.ones(3)})
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "birds_head.pt")
    write(tmp_path / "zeroshot.safetensors", {"a.weight": torch.zeros(6, 4), "b": torch.zeros(3)})
    (found,) = find_sets(tmp_path)
    assert found.layout == "plain" and found.base == tmp_path / "base.safetensors" and sorted(found.experts) == list(TASKS)
    assert {skipped.path.name: skipped.reason for skipped in found.skipped} == {
        "README.md": "is no checkpoint",
        "pictures": "is a folder without checkpoints",
        "labels.safetensors": "has no parameter in common with the base base.safetensors",
        "birds_head.pt": "is a head, but no task of a set has its name",
        "zeroshot.safetensors": "has the name of a base, but base.safetensors is used",
    }


def test_the_base_may_lie_above_the_experts(tmp_path: Path) -> None:
    plain(tmp_path / "experts")
    (tmp_path / "experts" / "base.safetensors").rename(tmp_path / "base.safetensors")
    for place in (tmp_path, tmp_path / "experts"):
        (found,) = find_sets(place)
        assert found.base == tmp_path / "base.safetensors" and found.folder == tmp_path / "experts"


def test_full_models_and_adapters_of_one_base_are_two_sets(tmp_path: Path) -> None:
    peft_with_base(tmp_path)
    vision_model(1).save_pretrained(tmp_path / "cars")
    assert [(found.layout, sorted(found.experts)) for found in find_sets(tmp_path)] == [
        ("peft", ["dtd", "mnist"]),
        ("plain", ["cars"]),
    ]


def test_one_name_twice_is_one_expert(tmp_path: Path) -> None:
    plain(tmp_path)
    torch.save({"a.weight": torch.ones(6, 4), "b": torch.ones(3)}, tmp_path / "DTD.pt")
    (found,) = find_sets(tmp_path)
    assert found.experts["DTD"] == tmp_path / "DTD.safetensors"
    assert [skipped.path.name for skipped in found.skipped] == ["DTD.pt"]


def test_models_without_a_base(tmp_path: Path) -> None:
    for seed in (1, 2):
        write(tmp_path / f"{seed}.safetensors", random_tensors(seed, {"a.weight": (6, 4)}))
    write(tmp_path / "other.safetensors", random_tensors(3, {"z.weight": (2, 2)}))
    (found,) = find_sets(tmp_path)
    assert found.base is None and sorted(found.experts) == ["1", "2"] and "as the base" in found.lacks
    assert [(s.path.name, s.reason) for s in found.skipped] == [
        ("other.safetensors", "has other parameters than the models beside it")
    ]


def test_what_is_alone_is_no_set(tmp_path: Path) -> None:
    write(tmp_path / "base.safetensors", random_tensors(1, {"a.weight": (6, 4)}))
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 8)
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / "alone.safetensors", random_tensors(1, {"b.weight": (2, 2)}))
    result = search(tmp_path / "elsewhere")
    assert result.sets == ()
    assert [(s.path.name, s.reason) for s in result.skipped] == [
        ("alone.safetensors", "has no base or expert beside it that it fits")
    ]


def test_adapters_inside_of_their_base(tmp_path: Path) -> None:
    vision_model(0).save_pretrained(tmp_path)
    adapter(tmp_path / "dtd", 1, base=str(tmp_path))
    (found,) = find_sets(tmp_path)
    assert found.layout == "peft" and found.base == tmp_path and list(found.experts) == ["dtd"]
