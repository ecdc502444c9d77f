"""Folders as transformers writes them: FusionBench's image towers and language models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from transformers import PreTrainedModel

from dcmerge.sets.layouts import find_sets, search
from dcmerge.vectors.task_vectors import TaskVectors
from tests.sets.layouts.builders import (
    MODEL,
    TASKS,
    fine_tuned,
    fusion_bench,
    language_models,
    tower_of,
    vision_model,
    whole_clip,
)

HUB = "models--{owner}--{name}/snapshots/0a1b"


def hub(folder: Path) -> Path:
    """FusionBench in a download cache: weights are links to files that are called by their hash."""
    made = fusion_bench(folder / "made")
    for place in sorted(made.iterdir()):
        owner = "openai" if place.name == MODEL else "tanganke"
        repository = folder / f"models--{owner}--{place.name}"
        snapshot, blobs = repository / "snapshots" / "0a1b", repository / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        for number, file in enumerate(sorted(place.iterdir())):
            file.rename(blobs / f"hash{number}")
            (snapshot / file.name).symlink_to(Path("../../blobs") / f"hash{number}")
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0a1b")
        place.rmdir()
    made.rmdir()
    return folder


def test_image_towers_beside_a_whole_clip(tmp_path: Path) -> None:
    (found,) = find_sets(fusion_bench(tmp_path))
    assert found.layout == "fusion_bench" and found.base == tmp_path / MODEL and found.folder == tmp_path
    assert dict(found.experts) == {task.lower(): tmp_path / f"{MODEL}_{task.lower()}" for task in TASKS}
    assert found.skipped == () and found.notes == ()
    vectors = TaskVectors.open(found.base, found.experts)
    (tower,) = (finding for finding in vectors.report.findings if finding.what == "tower")
    assert tower.level == "note" and "vision_model.*" in tower.text
    assert all(name.startswith("vision_model.") for name in vectors.parameters)
    expert, base = fine_tuned(tower_of(whole_clip()), 1).state_dict(), whole_clip().state_dict()
    own = next(name for name in expert if name.endswith("layers.0.mlp.fc1.weight"))
    wanted = expert[own] - base["vision_model.encoder.layers.0.mlp.fc1.weight"]
    torch.testing.assert_close(vectors.delta("vision_model.encoder.layers.0.mlp.fc1.weight", "dtd"), wanted)


@pytest.mark.parametrize("form", ["tanganke_{name}", HUB.replace("{owner}", "tanganke")])
def test_names_with_their_owner(tmp_path: Path, form: str) -> None:
    (found,) = find_sets(fusion_bench(tmp_path, form, whole=False))
    assert sorted(found.experts) == ["dtd", "mnist"] and found.base is not None
    assert TaskVectors.open(found.base, found.experts).tasks == ("dtd", "mnist")


def test_a_download_cache_with_links_to_blobs(tmp_path: Path) -> None:
    (found,) = find_sets(hub(tmp_path))
    assert found.base == tmp_path / f"models--openai--{MODEL}/snapshots/0a1b" and sorted(found.experts) == ["dtd", "mnist"]
    assert found.skipped == ()  # neither blobs nor refs
    assert TaskVectors.open(found.base, found.experts).tasks == ("dtd", "mnist")


def test_another_downloaded_version_is_not_another_expert(tmp_path: Path) -> None:
    repository = hub(tmp_path) / f"models--tanganke--{MODEL}_dtd"
    vision_model(5).save_pretrained(repository / "snapshots" / "9f9f")
    (found,) = find_sets(tmp_path)
    assert found.experts["dtd"].name == "0a1b"
    assert [(s.path.name, s.reason) for s in found.skipped] == [("9f9f", "is another downloaded version than the main one")]


def test_owners_as_folders(tmp_path: Path) -> None:
    fusion_bench(tmp_path / "tanganke")
    (tmp_path / "openai").mkdir()
    (tmp_path / "tanganke" / MODEL).rename(tmp_path / "openai" / MODEL)
    (found,) = find_sets(tmp_path)
    assert found.base == tmp_path / "openai" / MODEL and found.folder == tmp_path


def test_two_possible_bases_are_not_guessed_among(tmp_path: Path) -> None:
    fusion_bench(tmp_path / "tanganke")
    (tmp_path / "tanganke" / MODEL).rename(tmp_path / "tanganke" / f"openai_{MODEL}")
    vision_model(3).save_pretrained(tmp_path / "tanganke" / f"laion_{MODEL}")
    (found,) = find_sets(tmp_path)
    assert found.base is None and "several folders could be the base" in found.notes[0]


def test_an_expert_of_another_network_is_skipped(tmp_path: Path) -> None:
    fusion_bench(tmp_path)
    stranger = tmp_path / f"{MODEL}_cars"
    stranger.mkdir()
    torch.save({"fc.weight": torch.ones(3, 3)}, stranger / "pytorch_model.bin")
    (found,) = find_sets(tmp_path)
    assert "cars" not in found.experts
    assert [(s.path.name, s.reason) for s in found.skipped] == [
        (stranger.name, f"has no parameter in common with the base {MODEL}")
    ]


def test_sharded_language_models_beside_their_base(tmp_path: Path) -> None:
    (found,) = find_sets(language_models(tmp_path))
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    assert found.layout == "language_model" and found.base == tmp_path / "base" and sorted(found.experts) == list(TASKS)
    assert found.title == "Language models (LlamaForCausalLM)" and found.encoder is None
    assert TaskVectors.open(found.base, found.experts).tasks == TASKS


def test_the_base_is_what_the_others_say_they_were_made_from(tmp_path: Path) -> None:
    (found,) = find_sets(language_models(tmp_path, base="tiny-llama", told="someone/tiny-llama"))
    assert found.base == tmp_path / "tiny-llama" and sorted(found.experts) == list(TASKS)
    assert "2 of the models say that they were made from it" in found.notes[0]


def test_a_base_elsewhere_on_this_machine(tmp_path: Path) -> None:
    language_models(tmp_path / "models", told=str(tmp_path / "elsewhere"))
    (tmp_path / "models" / "base").rename(tmp_path / "elsewhere")
    (found,) = find_sets(tmp_path / "models")
    assert found.base == tmp_path / "elsewhere" and sorted(found.experts) == list(TASKS)


def test_models_that_name_different_bases(tmp_path: Path) -> None:
    language_models(tmp_path, base="one", told="one")
    path = tmp_path / "MNIST" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_name_or_path": "DTD"}))
    (found,) = find_sets(tmp_path)
    assert found.base is None and "different bases" in found.notes[0] and set(found.experts) == {"one", *TASKS}


def test_without_a_base_the_models_are_a_set_that_asks_for_one(tmp_path: Path) -> None:
    language_models(tmp_path, base="unknown-name")
    (found,) = find_sets(tmp_path)
    assert found.base is None and "so the base must be named" in found.notes[0]
    named = found.with_base(tmp_path / "unknown-name").checked()
    assert sorted(named.experts) == list(TASKS)


def test_earlier_states_of_a_training_are_skipped(tmp_path: Path) -> None:
    language_models(tmp_path)
    (tmp_path / "DTD" / "checkpoint-100").mkdir()
    for file in (tmp_path / "MNIST").iterdir():
        (tmp_path / "DTD" / "checkpoint-100" / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "DTD" / "optimizer.pt")
    result = search(tmp_path)
    (found,) = result.sets
    reasons = {s.path.name: s.reason for s in found.skipped}
    assert reasons == {
        "checkpoint-100": "is an earlier state of the model in DTD",
        "optimizer.pt": "belongs to the training, not to the model",
    }


def test_states_of_one_training_alone_are_not_guessed_among(tmp_path: Path) -> None:
    language_models(tmp_path)
    for number in (1, 2):
        place = tmp_path / "Cars" / f"checkpoint-{number}"
        place.mkdir(parents=True)
        for file in (tmp_path / "MNIST").iterdir():
            (place / file.name).write_bytes(file.read_bytes())
    (found,) = find_sets(tmp_path)
    assert sorted(found.experts) == list(TASKS)
    assert {s.reason for s in found.skipped} == {"is one of 2 checkpoints of one training: choose one of them"}
    (tmp_path / "Cars" / "checkpoint-1").rename(tmp_path / "gone")
    (alone,) = find_sets(tmp_path)
    assert alone.experts["Cars"] == tmp_path / "Cars" / "checkpoint-2"


def published(kind: str) -> tuple[PreTrainedModel, list[PreTrainedModel]]:
    """A tiny base and two experts of what FusionBench and MergeBench publish."""
    small = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "gpt2":
        config = tf.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)
        heads = [tf.GPT2Config(**{**config.to_dict(), "num_labels": n}) for n in (2, 3)]
        return tf.GPT2LMHeadModel(config), [tf.GPT2ForSequenceClassification(one) for one in heads]
    if kind == "flan-t5-base":
        config = tf.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2)
        return tf.T5ForConditionalGeneration(config), [tf.T5ForConditionalGeneration(config) for _ in range(2)]
    if kind.startswith("gemma"):
        config = tf.Gemma2Config(**small, num_key_value_heads=2, head_dim=4)
        return tf.Gemma2ForCausalLM(config), [tf.Gemma2ForCausalLM(config) for _ in range(2)]
    config = tf.LlamaConfig(**small, num_key_value_heads=2)
    return tf.LlamaForCausalLM(config), [tf.LlamaForCausalLM(config) for _ in range(2)]


PUBLISHED = {
    "gpt2": ("fusion_bench", "openai-community", "tanganke", "gpt2_{}", ("cola", "mnli")),
    "flan-t5-base": ("fusion_bench", "google", "tanganke", "flan-t5-base_glue-{}", ("cola", "sst2")),
    "Llama-3.2-3B": ("merge_bench", "meta-llama", "MergeBench", "Llama-3.2-3B_{}", ("coding", "math")),
    "Llama-3.1-8B-Instruct": ("merge_bench", "meta-llama", "MergeBench", "Llama-3.1-8B-Instruct_{}", ("math", "safety")),
    "gemma-2-2b-it": ("merge_bench", "google", "MergeBench", "gemma-2-2b-it_{}", ("instruction", "safety")),
}


@pytest.mark.parametrize("form", ["{name}", "{owner}/{name}", "models--{owner}--{name}/snapshots/0a1b"])
@pytest.mark.parametrize("model", PUBLISHED)
def test_language_models_as_they_are_published(model: str, form: str, tmp_path: Path) -> None:
    layout, owner_of_base, owner, name, tasks = PUBLISHED[model]
    base, experts = published(model)
    base.save_pretrained(tmp_path / form.format(owner=owner_of_base, name=model))
    for task, expert in zip(tasks, experts, strict=True):
        expert.save_pretrained(tmp_path / form.format(owner=owner, name=name.format(task)))
    (found,) = find_sets(tmp_path)
    assert found.layout == layout and tuple(found.experts) == tasks and model in found.title
    assert found.base == tmp_path / form.format(owner=owner_of_base, name=model)
    assert len(TaskVectors.open(found.base, found.experts).parameters) >= 8
