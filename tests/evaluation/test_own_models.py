"""A bench around one's own models: what it takes from where, and the same accuracies under Hugging Face's names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel

from dcmerge import TaskVectors, merge
from dcmerge.checkpoints import open_checkpoint
from dcmerge.checkpoints.schemes import open_clip_weights
from dcmerge.errors import InputError
from dcmerge.evaluation import Bench, choose_scale
from dcmerge.evaluation.drift import feature_drift
from dcmerge.evaluation.own_models import BenchSpecification, open_bench
from dcmerge.methods import fitting_methods, method
from tests.builders import random_tensors, write
from tests.evaluation.datasets.builders import class_folders, mnist_like, pictures
from tests.own_models import TASKS, data_root, heads_of, own_models, tiny_clip, write_config

HF = {
    "projection_dim": 16,
    "vision_config": {
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "projection_dim": 16,
    },
    "text_config": {
        "vocab_size": 49408,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 32,
        "projection_dim": 16,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    own_models(folder)
    return folder


@pytest.fixture(scope="module")
def vectors(folder: Path) -> TaskVectors:
    return TaskVectors.open(folder / "base.safetensors", {task: folder / f"{task}.safetensors" for task in TASKS})


def opened(folder: Path, vectors: TaskVectors, **more: object) -> Bench:
    return open_bench(vectors, **{"encoder": str(folder / "tiny.json"), "data": str(folder / "data"), **more})


def test_experts_beat_zero_shot_with_computed_heads(folder: Path, vectors: TaskVectors) -> None:
    bench = opened(folder, vectors)
    assert {task: one.head.shape for task, one in bench.tasks.items()} == {"tints": (4, 16), "corners": (3, 16)}
    heads = heads_of(tiny_clip())
    assert all(torch.allclose(bench.tasks[task].head, heads[task], atol=1e-6) for task in TASKS)
    assert bench.experts().mean > 0.95 > 0.5 > bench.zero_shot().mean
    found = bench.evaluate(bench.base_weights(), "base")
    assert found.split_rules == {task: str(one.facts["split_rule"]) for task, one in bench.tasks.items()}
    assert "12 of 120 training images" in found.to_dict()["split_rules"]["tints"]
    assert any("not the CLIP papers'" in note for note in bench.notes)


def with_layers(folder: Path, layers: int) -> str:
    path = folder / f"layers-{layers}.json"
    config = json.loads((folder / "tiny.json").read_text())
    path.write_text(json.dumps({**config, "vision_cfg": {**config["vision_cfg"], "layers": layers}}))
    return str(path)


def test_an_encoder_of_another_depth_is_refused(folder: Path, vectors: TaskVectors) -> None:
    with pytest.raises(InputError, match=r"12 that it does not use .*: visual\.transformer\.resblocks\.1\.\S+, .* and 4 more"):
        opened(folder, vectors, encoder=with_layers(folder, 1))
    with pytest.raises(InputError, match=r"missing visual\.transformer\.resblocks\.2\."):
        opened(folder, vectors, encoder=with_layers(folder, 3))


def test_a_checkpoint_of_another_depth_is_refused(folder: Path, vectors: TaskVectors, tmp_path: Path) -> None:
    deeper = {name.replace(".1.", ".2."): value for name, value in tiny_clip().items() if ".resblocks.1." in name}
    bench = opened(folder, vectors)
    with pytest.raises(InputError, match="12 that it does not use"):
        bench.weights_of(open_checkpoint(write(tmp_path / "deep.safetensors", {**tiny_clip(), **deeper})))
    assert bench.weights_of(open_checkpoint(write(tmp_path / "same.safetensors", tiny_clip())))


def test_heads_from_files_are_the_same_heads(folder: Path, vectors: TaskVectors, tmp_path: Path) -> None:
    for task, head in heads_of(tiny_clip()).items():
        torch.save(100 * head, tmp_path / f"{task}_head.pt")
    bench = opened(folder, vectors, heads=str(tmp_path))
    assert bench.zero_shot().to_dict() == opened(folder, vectors).zero_shot().to_dict()
    assert bench.logit_scale.origin == "learned, in the base's file"  # and not the heads' 100
    assert bench.notes == () and str(tmp_path) in str(bench.tasks["tints"].facts["head"])


def test_methods_that_look_at_images_run(folder: Path, vectors: TaskVectors) -> None:
    bench = opened(folder, vectors)
    assert set(fitting_methods(vectors, bench)[1]) == {"knots", "robustmerge"}
    for slug in ("regmean", "fisher", "adamerging"):
        merged = merge(vectors, slug, bench=bench, **method(slug).quick)
        assert bench.evaluate(bench.merged_weights(merged.deltas, 1.0), slug).mean > 0


def test_a_limit_at_opening_is_a_limit_at_evaluation(folder: Path, vectors: TaskVectors) -> None:
    few, all_ = opened(folder, vectors, limit=9, val_limit=5), opened(folder, vectors)
    assert len(few.split("tints", "test", None)) == 9 and len(few.split("tints", "val", None)) == 5
    assert few.zero_shot().mean == all_.zero_shot(limit=9).mean
    assert "at most 5 of val and 9 of test" in str(few.tasks["tints"].facts["split_rule"])


def test_a_task_without_images_is_merged_but_not_evaluated(folder: Path, vectors: TaskVectors) -> None:
    bench = opened(folder, vectors, datasets={"corners": "none"})
    assert list(bench.zero_shot().tasks) == ["tints"]
    assert "none of corners" in method("regmean").obstacle(vectors, bench) and not method("ties").obstacle(vectors, bench)
    assert choose_scale(bench, merge(vectors, "ties").deltas).value > 0


def test_a_task_by_the_name_of_its_data_set_and_by_its_folder(folder: Path, vectors: TaskVectors, tmp_path: Path) -> None:
    mnist_like(tmp_path, pictures([n % 10 for n in range(40)], channels=1), pictures(list(range(10)), channels=1))
    where = {"tints": "mnist", "corners": str(folder / "data" / "corners")}
    bench = opened(folder, vectors, data=str(tmp_path), datasets=where)
    assert bench.tasks["tints"].title == "MNIST" and bench.tasks["tints"].classes == tuple("0123456789")
    assert len(bench.tasks["corners"].classes) == 3


# ---- Hugging Face's names


def clip_set(folder: Path) -> tuple[TaskVectors, TaskVectors]:
    """One model and its experts as transformers saves its vision towers, and the twin under open_clip's names."""
    torch.manual_seed(0)
    whole = CLIPModel(CLIPConfig(**HF)).eval()
    whole.save_pretrained(folder / "clip")
    vision = CLIPVisionModel.from_pretrained(folder / "clip").eval()
    base = {name: value.clone() for name, value in vision.state_dict().items()}
    projection = whole.visual_projection.weight.detach().clone()
    text = {name: value for name, value in open_clip_weights(whole.state_dict()).items() if not name.startswith("visual.")}

    def twin(weights: dict) -> dict:
        return {**text, **open_clip_weights({**weights, "visual_projection.weight": projection})}

    vision.save_pretrained(folder / "hf" / "base")
    write(folder / "oc" / "base.safetensors", twin(base))
    for seed, task in enumerate(TASKS):
        move = random_tensors(seed, {name: tuple(value.shape) for name, value in base.items()}, scale=0.05)
        expert = {name: value + move[name] for name, value in base.items()}
        vision.load_state_dict(expert)
        vision.save_pretrained(folder / "hf" / task)
        write(folder / "oc" / f"{task}.safetensors", twin(expert))
    hugging_face = TaskVectors.open(folder / "hf" / "base", {task: folder / "hf" / task for task in TASKS})
    experts = {task: folder / "oc" / f"{task}.safetensors" for task in TASKS}
    return hugging_face, TaskVectors.open(folder / "oc" / "base.safetensors", experts)


def test_a_hugging_face_set_has_the_accuracies_of_its_open_clip_twin(tmp_path: Path) -> None:
    hugging_face, twin = clip_set(tmp_path)
    data_root(tmp_path / "data")
    write_config(tmp_path)
    benches = opened(tmp_path, hugging_face, weights=str(tmp_path / "clip")), opened(tmp_path, twin)
    assert (benches[0].same_names, benches[1].same_names) == (False, True)
    assert set(benches[0].extra) == {"visual.proj"}
    for ask in (lambda b: b.zero_shot(), lambda b: b.experts(), lambda b: averaged(b)):
        a, b = map(ask, benches)
        scales = a.logit_scale, b.logit_scale
        assert scales[0].value == scales[1].value
        assert [scale.origin for scale in scales] == ["learned, in the weights clip", "learned, in the base's file"]
        assert replace(a, logit_scale=None).to_dict() == replace(b, logit_scale=None).to_dict()
        assert all(torch.equal(row.hits, b.tasks[task].hits) for task, row in a.tasks.items())
    one, other = (feature_drift(bench, bench.expert_weights("tints")) for bench in benches)
    torch.testing.assert_close(torch.tensor(one.merged), torch.tensor(other.merged), atol=1e-6, rtol=1e-3)
    weights = benches[0].base_weights()
    images = benches[0].split("tints", "test", None).images
    with torch.inference_mode():
        model = CLIPModel.from_pretrained(tmp_path / "clip").eval()
        embedded = model.visual_projection(model.vision_model(benches[0].encoder.pixels(images)).pooler_output)
    torch.testing.assert_close(benches[0].encoder.encode(weights, images), torch.nn.functional.normalize(embedded, dim=-1))


def test_a_whole_clip_as_base_brings_projection_and_text_tower(tmp_path: Path) -> None:
    """FusionBench's layout: the base is the whole CLIP, the experts are vision towers."""
    _, twin = clip_set(tmp_path)
    data_root(tmp_path / "data")
    write_config(tmp_path)
    vectors = TaskVectors.open(tmp_path / "clip", {task: tmp_path / "hf" / task for task in TASKS})
    one, other = opened(tmp_path, vectors), opened(tmp_path, twin)
    assert one.experts().to_dict() == other.experts().to_dict() and one.zero_shot().to_dict() == other.zero_shot().to_dict()
    assert any("text tower of the base" in note for note in one.notes)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks transformers so
def test_adapters_on_a_whole_clip_run_as_peft_runs_them(tmp_path: Path) -> None:
    clip_set(tmp_path)
    data_root(tmp_path / "data")
    write_config(tmp_path)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = {}
    for task in TASKS:
        adapted[task] = get_peft_model(CLIPVisionModel.from_pretrained(tmp_path / "clip"), settings).eval()
        adapted[task].save_pretrained(tmp_path / "lora" / task)
    vectors = TaskVectors.open(tmp_path / "clip", {task: tmp_path / "lora" / task for task in TASKS})
    bench, projection = opened(tmp_path, vectors), CLIPModel.from_pretrained(tmp_path / "clip").visual_projection
    for task, model in adapted.items():
        images = bench.split(task, "test", None).images
        with torch.inference_mode():
            wanted = projection(model(bench.encoder.pixels(images)).pooler_output)
        found = bench.encoder.encode(bench.expert_weights(task), images)
        torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=-1))
    merged = merge(vectors, "dc_merge").deltas
    assert 0 < bench.evaluate(bench.merged_weights(merged, 1.0), "merged").mean <= 1


def averaged(bench: Bench):
    """Averaging is the same of split and of fused q, k and v."""
    deltas = merge(bench.vectors, "average").deltas
    return bench.evaluate(bench.merged_weights(deltas, 0.7), "average")


def test_of_a_hugging_face_set_methods_with_images_say_why_not(tmp_path: Path) -> None:
    hugging_face, _ = clip_set(tmp_path)
    data_root(tmp_path / "data")
    write_config(tmp_path)
    bench = opened(tmp_path, hugging_face, weights=str(tmp_path / "clip"))
    fitting, left_out = fitting_methods(hugging_face, bench)
    assert "ties" in fitting and "open_clip's names" in left_out["regmean"] and "open_clip's names" in left_out["surgery"]
    with pytest.raises(InputError, match="missing visual.proj"):
        opened(tmp_path, hugging_face, heads=str(saved_heads(tmp_path)))


def saved_heads(folder: Path) -> Path:
    save_file(heads_of(tiny_clip()), folder / "heads.safetensors")
    return folder


# ---- bad input


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data": None}, "expected a folder with the data sets, or one for the task tints"),
        ({"data": "/no/such/folder"}, "no file or folder /no/such/folder"),
        ({"datasets": {"other": "mnist"}}, "expected tasks of this set"),
        ({"datasets": {"tints": "mnist"}}, "MNIST/raw .* downloads are not allowed"),
        ({"datasets": {"tints": "no-such"}}, "no file or folder no-such"),
        ({"datasets": {"tints": "none", "corners": "none"}}, "at least one task"),
        ({"datasets": {"tints": 3}}, "name or folder for each task"),
        ({"encoder": "ViT-Q-77"}, "name of an open_clip model"),
        ({"encoder": "ViT-S-32"}, "expected the weights of this image encoder|no fitting"),
        ({"encoder": 7}, "encoder: expected a text"),
        ({"weights": "openai"}, "weights: expected a file"),
        ({"heads": "/no/such"}, "no file or folder /no/such"),
        ({"split_rule": "mine"}, "split_rule"),
        ({"limit": 0}, "limit"),
        ({"val_limit": True}, "val_limit"),
        ({"download": "yes"}, "download"),
        ({"other": 1}, "expected encoder and some of"),
    ],
)
def test_bad_specifications(values: dict, words: str, folder: Path, vectors: TaskVectors) -> None:
    with pytest.raises(InputError, match=words):
        opened(folder, vectors, **values)


def test_a_tag_of_open_clip_is_not_fetched_unasked(folder: Path, vectors: TaskVectors) -> None:
    with pytest.raises(InputError, match="must be downloaded, and downloads are not allowed"):
        opened(folder, vectors, encoder="ViT-B-32-quickgelu", weights="openai")


def test_heads_that_do_not_fit_are_refused(folder: Path, vectors: TaskVectors, tmp_path: Path) -> None:
    heads = heads_of(tiny_clip())
    for name, spoiled, words in (("rows", heads["tints"][:2], "4 classes"), ("width", heads["tints"][:, :5], "embeddings of 16")):
        save_file({"tints": spoiled.contiguous(), "corners": heads["corners"]}, _made(tmp_path / name) / "heads.safetensors")
        with pytest.raises(InputError, match=words):
            opened(folder, vectors, heads=str(tmp_path / name))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_class_folders_that_differ_between_splits_are_refused(folder: Path, vectors: TaskVectors, tmp_path: Path) -> None:
    rows = pictures([0, 1, 2] * 5)
    class_folders(tmp_path / "tints" / "train", rows, ["a", "b", "c"])
    class_folders(tmp_path / "tints" / "test", rows, ["a", "b", "d"])
    with pytest.raises(InputError, match=r"same class folders .*c, d"):
        opened(folder, vectors, data=str(tmp_path))
    with pytest.raises(InputError, match="got no image"):
        opened(folder, vectors, data=str(_made(tmp_path / "empty" / "tints").parent))


def test_a_specification_is_plain_data() -> None:
    given = BenchSpecification("tiny.json", "data", datasets={"a": "mnist"}, limit=5)
    assert BenchSpecification.of(json.loads(json.dumps(given.to_data()))) == given
    for bad in ({}, 3, {"encoder": "x", "also": 1}):
        with pytest.raises(InputError, match="expected encoder"):
            BenchSpecification.of(bad)
