"""The model card says what went in, how it was merged and what was measured, and no name from a file becomes markup."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml

import dcmerge
from dcmerge import TaskVectors
from dcmerge.evaluation import Evaluation, LogitScale
from dcmerge.evaluation.accuracy import TaskAccuracy
from tests.builders import full_set, lora_set, random_deltas, random_factors, random_tensors, write


def front_matter(card: str) -> dict:
    _, matter, _ = card.split("---\n", 2)
    return yaml.safe_load(matter)


def test_inputs_method_parameters_and_scale(tmp_path: Path) -> None:
    vectors = full_set(tmp_path, random_deltas(2))
    merged = dcmerge.merge(vectors, "ties", density=0.3)
    merged.save(tmp_path / "out.safetensors", scale=0.4, scale_origin="chosen on validation", card=True)
    card = (tmp_path / "out.md").read_text()
    for text in (
        "TIES",
        "density`: 0.3",
        "0.4 (chosen on validation)",
        "float32",
        "None was measured",
        "python -m dcmerge evaluate --checkpoint FILE",
        vectors.base.fingerprint,
        *(expert.fingerprint for expert in vectors.experts.values()),
    ):
        assert text in card.replace("\\", "")
    assert front_matter(card)["tags"] == ["merge", "dcmerge", "ties"] and front_matter(card)["library_name"] == "open_clip"
    merged.save(tmp_path / "plain.safetensors")
    assert not (tmp_path / "plain.md").exists()


def test_measured_accuracies_stand_with_split_images_and_interval(tmp_path: Path) -> None:
    hits = {"task0": [True] * 30 + [False] * 10, "task1": [True] * 10 + [False] * 30}
    tasks = {name: TaskAccuracy(name, torch.tensor(own), 0.8) for name, own in hits.items()}
    scale = LogitScale(20.0, "learned, in the base's file")
    merged = dcmerge.merge(full_set(tmp_path, random_deltas(2)), "average")
    merged.save(tmp_path / "out.safetensors", card=True, evaluation=Evaluation("average", "val", tasks, logit_scale=scale))
    card = (tmp_path / "out.md").read_text()
    low, high = tasks["task0"].interval
    assert "validation split, 40 images a task" in card and "None was measured" not in card
    assert f"| task0 | 75.0 | {100 * low:.1f} to {100 * high:.1f} | 93.8 | 40 |" in card
    assert "| mean | 50.0 |" in card
    assert "losses: 20, learned, in the base's file." in card


def test_text_from_files_is_no_markup(tmp_path: Path) -> None:
    name = "<img src=x> [click](http:x) | `a`\n# b"
    base = write(tmp_path / "base.safetensors", random_tensors(0))
    expert = write(tmp_path / "x|<b>`.safetensors", random_tensors(1))
    vectors = TaskVectors.open(base, {name: expert, "plain": base})
    dcmerge.merge(vectors, "average").save(tmp_path / "out.safetensors", card=True)
    card = (tmp_path / "out.md").read_text()
    assert "<img" not in card.replace("\\<img", "") and "\n# b" not in card and "[click](" not in card
    row = next(line for line in card.splitlines() if "img" in line and line.startswith("|"))
    assert row.replace("\\|", "").count("|") == 4


def test_the_base_is_named_where_a_file_says_it(tmp_path: Path) -> None:
    lora_set(tmp_path, {"a": random_factors(0)})
    for said, known in (("org/model-7b", "org/model-7b"), ("../x: [y]\n", None)):
        path = tmp_path / "a/adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": said}))
        merged = dcmerge.merge(dcmerge.TaskVectors.open(None, {"a": path.parent}), "average")
        merged.save_adapter(tmp_path / "out", replace=True)
        assert front_matter((tmp_path / "out/README.md").read_text()).get("base_model") == known
