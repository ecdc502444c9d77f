"""Which sets there are below the roots, and opening them by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge.checkpoints import Roots
from dcmerge.errors import InputError
from dcmerge.sets.model_sets import ROOTS_VARIABLE, available, open_set_by_name, roots, stamp
from dcmerge.zoo import ZOOS
from tests.builders import random_factors, random_tensors, write, write_adapter
from tests.sets.layouts.builders import adapters, old_task_vectors, task_vectors

SMALL = {"a.weight": (6, 4)}


def write_small(folder: Path, *tasks: str) -> Path:
    for seed, name in enumerate(("base", *tasks)):
        write(folder / f"{name}.safetensors", random_tensors(seed, SMALL))
    return folder


def test_the_zoos_come_first_then_folders_with_a_base(tmp_path: Path) -> None:
    write_small(tmp_path / "two" / "deep", "x")
    write_small(tmp_path / "one", "x", "y")
    write(tmp_path / "no-base" / "x.safetensors", random_tensors(1, SMALL))
    found = available(Roots([tmp_path]))
    assert list(found) == [*ZOOS, "folder:one", "folder:two/deep"]
    assert found["folder:one"] == "Folder one"


def test_roots_without_folders_hold_only_the_zoos(tmp_path: Path) -> None:
    assert available(Roots([tmp_path / "missing"])) == ZOOS


def test_a_folder_set_has_its_experts_and_no_bench(tmp_path: Path) -> None:
    write_small(tmp_path / "one", "birds", "cars")
    found = open_set_by_name("folder:one", Roots([tmp_path]))
    assert found.vectors.tasks == ("birds", "cars") and found.bench is None
    assert found.task_titles == {"birds": "birds", "cars": "cars"} and found.title == "Folder one"
    with pytest.raises(InputError, match="folder:one: expected a set with images of its tasks"):
        _ = found.images


def test_a_set_may_lie_in_the_root_itself(tmp_path: Path) -> None:
    write_small(tmp_path, "birds")
    (name,) = set(available(Roots([tmp_path]))) - set(ZOOS)
    assert open_set_by_name(name, Roots([tmp_path])).vectors.tasks == ("birds",)


def test_adapters_beside_their_base(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    write(folder / "base.safetensors", random_tensors(0, {"attn.q_proj.weight": (16, 12), "mlp.fc1.weight": (20, 16)}))
    for seed, task in enumerate(("birds", "cars"), start=1):
        write_adapter(folder / task, random_factors(seed))
    found = open_set_by_name("folder:lora", Roots([tmp_path]))
    assert found.vectors.kind == "lora" and found.vectors.tasks == ("birds", "cars")


@pytest.mark.parametrize("name", ["folder:one", "folder:../one", "folder:/etc", "folder:", "nothing", ""])
def test_a_name_outside_the_roots_is_refused(tmp_path: Path, name: str) -> None:
    write_small(tmp_path / "one", "x")
    (tmp_path / "allowed").mkdir()
    with pytest.raises(InputError, match="expected"):
        open_set_by_name(name, Roots([tmp_path / "allowed"]))


def test_a_link_out_of_the_roots_is_not_followed(tmp_path: Path) -> None:
    outside = write_small(tmp_path / "outside", "x")
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "link").symlink_to(outside)
    (allowed / "files").mkdir()
    (allowed / "files" / "base.safetensors").symlink_to(outside / "base.safetensors")
    assert available(Roots([allowed])) == ZOOS


def test_every_layout_below_the_roots_is_offered_under_a_name_of_its_own(tmp_path: Path) -> None:
    task_vectors(tmp_path / "full")
    old_task_vectors(tmp_path / "old")
    for model in ("KnOTS-ViT-B-32", "KnOTS-ViT-L-14"):
        adapters(tmp_path / "lora", model + "_lora_R16_{task}")
    allowed = Roots([tmp_path])
    assert {name: title for name, title in available(allowed).items() if name not in ZOOS} == {
        "folder:full/ViT-B-32": "Folder full/ViT-B-32 (Task vectors of ViT-B-32)",
        "folder:lora#KnOTS-ViT-B-32": "Folder lora#KnOTS-ViT-B-32 (LoRA adapters of KnOTS-ViT-B-32)",
        "folder:lora#KnOTS-ViT-L-14": "Folder lora#KnOTS-ViT-L-14 (LoRA adapters of KnOTS-ViT-L-14)",
        "folder:old/ViT-B-32": "Folder old/ViT-B-32 (Task vectors, old layout, of ViT-B-32, cannot be opened yet)",
    }
    assert open_set_by_name("folder:full/ViT-B-32", allowed).vectors.tasks == ("DTD", "MNIST")
    assert open_set_by_name("folder:lora#KnOTS-ViT-L-14", allowed).vectors.kind == "lora"
    with pytest.raises(InputError, match="python -m dcmerge convert"):
        open_set_by_name("folder:old/ViT-B-32", allowed)


def test_the_stamp_changes_with_any_file_of_the_set(tmp_path: Path) -> None:
    folder = adapters(tmp_path / "lora")
    write_small(tmp_path / "other", "x")
    allowed = Roots([tmp_path])
    before = stamp("folder:lora", allowed)
    write_small(tmp_path / "other", "x", "y")
    assert stamp("folder:lora", allowed) == before != ""
    settings = folder / "dtd" / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_alpha": 4', '"lora_alpha": 8'))
    assert stamp("folder:lora", allowed) != before
    assert stamp("folder:unknown", allowed) == stamp("demo", allowed) == ""


def test_the_same_folder_below_two_roots(tmp_path: Path) -> None:
    for root in ("first", "second"):
        write_small(tmp_path / root / "one", root)
    allowed = Roots([tmp_path / "first", tmp_path / "second"])
    names = [name for name in available(allowed) if name not in ZOOS]
    assert names == [f"folder:{tmp_path / 'second' / 'one'}", "folder:one"]
    assert [open_set_by_name(name, allowed).vectors.tasks for name in names] == [("second",), ("first",)]


def test_a_base_alone_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    write_small(tmp_path / "one")
    with pytest.raises(InputError, match="at least one expert"):
        open_set_by_name("folder:one", Roots([tmp_path]))


def test_roots_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOTS_VARIABLE, f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert roots().folders == (tmp_path / "a", tmp_path / "b")
    monkeypatch.setenv(ROOTS_VARIABLE, "")
    monkeypatch.chdir(tmp_path)
    assert roots().folders == (tmp_path / "checkpoints",)
