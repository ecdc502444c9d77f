"""Adapter folders as PEFT writes them, under the names of the papers' collections."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcmerge.sets.layouts import find_sets
from dcmerge.vectors.task_vectors import TaskVectors
from tests.sets.layouts.builders import TASKS, adapter, adapters, peft_with_base, save, vision_model


def test_adapters_beside_their_base_with_heads(tmp_path: Path) -> None:
    (found,) = find_sets(peft_with_base(tmp_path))
    assert found.layout == "peft" and found.base == tmp_path / "base" and found.is_lora
    assert dict(found.experts) == {"dtd": tmp_path / "dtd", "mnist": tmp_path / "mnist"}
    assert dict(found.heads) == {task: tmp_path / "heads" / f"{task}_head.pt" for task in ("dtd", "mnist")}
    assert TaskVectors.open(found.base, found.experts).kind == "lora"


def test_adapters_do_without_a_base(tmp_path: Path) -> None:
    (found,) = find_sets(adapters(tmp_path, base="openai/clip-vit-base-patch32", safe=False))
    assert found.base is None and found.lacks == "" and found.checked() is found
    assert found.encoder == "ViT-B-32-quickgelu"
    assert found.notes == ("they were made for openai/clip-vit-base-patch32; without a base only deltas can be written",)
    assert TaskVectors.open(None, found.experts).tasks == ("dtd", "mnist")


@pytest.mark.parametrize(
    ("form", "title", "encoder"),
    [
        ("KnOTS-ViT-L-14_lora_R16_{task}", "LoRA adapters of KnOTS-ViT-L-14", "ViT-L-14"),
        ("flan-t5-base_glue-{task}_lora-16", "LoRA adapters of flan-t5-base", None),
        ("LLaVA_7B_lora_r16_{task}", "LoRA adapters of LLaVA_7B", None),
        ("models--hoffman-lab--KnOTS-ViT-B-32_lora_R16_{task}/snapshots/0a", "LoRA adapters of KnOTS-ViT-B-32", "ViT-B-32"),
        ("{task}/checkpoint-500", "LoRA adapters", None),
        ("{task}/adapter", "LoRA adapters", None),
    ],
)
def test_names_of_collections(tmp_path: Path, form: str, title: str, encoder: str | None) -> None:
    (found,) = find_sets(adapters(tmp_path, form))
    assert dict(found.experts) == {task.lower(): tmp_path / form.format(task=task.lower()) for task in TASKS}
    assert (found.title, found.encoder, found.folder) == (title, encoder, tmp_path)


def test_two_collections_in_one_folder(tmp_path: Path) -> None:
    for model in ("KnOTS-ViT-B-32", "KnOTS-ViT-L-14"):
        adapters(tmp_path, model + "_lora_R16_{task}")
    assert [found.title for found in find_sets(tmp_path)] == [
        "LoRA adapters of KnOTS-ViT-B-32",
        "LoRA adapters of KnOTS-ViT-L-14",
    ]


def test_adapters_made_for_different_bases_are_different_sets(tmp_path: Path) -> None:
    adapter(tmp_path / "dtd", 1, base="/data/one")
    adapter(tmp_path / "mnist", 2, base="/elsewhere/one")
    adapter(tmp_path / "cars", 3, base="two")
    assert [list(found.experts) for found in find_sets(tmp_path)] == [["cars"], ["dtd", "mnist"]]


@pytest.mark.parametrize("absolute", [True, False])
def test_the_base_that_the_settings_name_on_this_machine(tmp_path: Path, absolute: bool) -> None:
    vision_model(0).save_pretrained(tmp_path / "models" / "tower")
    base = str(tmp_path / "models" / "tower") if absolute else "../models/tower"
    (found,) = find_sets(adapters(tmp_path / "adapters", base=base))
    assert found.base == tmp_path / "models" / "tower"


@pytest.mark.parametrize("named", ["nowhere", ".", "dtd", "a\0b", "", "/dev/null"])
def test_a_name_that_is_no_model_here_is_no_base(tmp_path: Path, named: str) -> None:
    (found,) = find_sets(adapters(tmp_path, base=named))
    assert found.base is None and found.lacks == ""


def test_parts_beside_an_adapter_are_named(tmp_path: Path) -> None:
    adapters(tmp_path, "LLaVA_7B_lora_r16_{task}")
    save(tmp_path / "LLaVA_7B_lora_r16_dtd" / "non_lora_trainables.bin", {"mm_projector": torch.ones(2)})
    (found,) = find_sets(tmp_path)
    assert any("non_lora_trainables.bin" in note and "1 of 2 adapters" in note for note in found.notes)
    assert [(s.path.name, s.reason) for s in found.skipped] == [
        ("non_lora_trainables.bin", "was trained beside the adapter and is not read")
    ]


def test_heads_of_several_models_go_by_the_models_name(tmp_path: Path) -> None:
    adapters(tmp_path / "lora" / "KnOTS", "KnOTS-ViT-B-32_lora_R16_{task}")
    for model in ("ViT-B-32", "ViT-L-14"):
        save(tmp_path / "lora_heads" / model / "dtd_head.pt", {"weight": torch.ones(2, 8)})
        save(tmp_path / "lora_heads" / model / "x" / "mnist_head.pt", {"weight": torch.ones(2, 8)})
    (found,) = find_sets(tmp_path)
    assert {task: path.parts[-2] for task, path in found.heads.items()} == {"dtd": "ViT-B-32", "mnist": "x"}
    (tmp_path / "lora" / "KnOTS").rename(tmp_path / "lora" / "other")
    adapters(tmp_path / "lora" / "plain")
    plain = next(one for one in find_sets(tmp_path) if one.folder.name == "plain")
    assert dict(plain.heads) == {} and "several files could be the head of dtd, mnist" in " ".join(plain.notes)


def test_an_adapter_that_cannot_be_read_stays_and_is_named(tmp_path: Path) -> None:
    adapters(tmp_path)
    (tmp_path / "dtd" / "adapter_config.json").write_text("{")
    found = {task: one for one in find_sets(tmp_path) for task in one.experts}
    assert set(found) == {"dtd", "mnist"} and any("damaged" in note for note in found["dtd"].notes)


def test_one_adapter_named_itself(tmp_path: Path) -> None:
    (found,) = find_sets(adapter(tmp_path / "dtd", 1))
    assert dict(found.experts) == {"dtd": tmp_path / "dtd"} and found.folder == tmp_path / "dtd"
