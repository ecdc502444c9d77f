"""The shipped demo keeps to the facts that docs/results.md states of it; what needs images is asked of `dcmerge zoo`."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
import torch
from safetensors.torch import load_file

from dcmerge.zoo import DATA, edition, kept_edition

FACTS = json.loads((DATA / "facts.json").read_text())
TASKS = FACTS["tasks"]


def mean(kind: str, split: str) -> float:
    """Mean accuracy over tasks."""
    return sum(task[kind][split] for task in TASKS.values()) / len(TASKS)


@pytest.mark.parametrize(("split", "most"), [("val", 0.63), ("test", 0.60)])  # the aim is 0.60; the page states what is missed
def test_the_base_is_no_expert_and_no_task_is_unknown_to_it(split: str, most: float) -> None:
    assert 0.40 <= mean("zero_shot", split) <= most
    assert min(task["zero_shot"][split] for task in TASKS.values()) > 0.20


def test_the_experts_know_their_tasks() -> None:
    assert mean("expert", "val") >= 0.88 and mean("lora", "val") >= 0.80
    assert all(task["expert"]["val"] > task["zero_shot"]["val"] + 0.03 for task in TASKS.values())


def test_task_vectors_are_short_and_nearly_orthogonal() -> None:
    base = load_file(DATA / "base.safetensors")
    flat = {task: flat_delta(base, load_file(DATA / "experts" / f"{task}.safetensors")) for task in TASKS}
    cosines = [float(torch.nn.functional.cosine_similarity(flat[a], flat[b], dim=0)) for a, b in combinations(flat, 2)]
    assert 0 < sum(cosines) / len(cosines) < 0.08
    norm = torch.cat([value.float().flatten() for value in base.values()]).norm()
    for task, delta in flat.items():
        kept = TASKS[task]["expert_training"]["relative_norm"]
        assert float(delta.norm() / norm) == pytest.approx(kept, rel=0.02) and kept < 0.03


def flat_delta(base: dict[str, torch.Tensor], expert: dict[str, torch.Tensor]) -> torch.Tensor:
    """All entries of a task vector in one row."""
    return torch.cat([(expert[name].float() - value.float()).flatten() for name, value in base.items()])


def test_the_demo_says_its_own_temperature() -> None:
    kept = FACTS["base"]["calibration"]
    scale = json.loads((DATA / "model.json").read_text())["logit_scale"]
    assert scale == kept["logit_scale"] and scale in (kept["learned"], kept["proxies"])
    errors = {name: values["ece"] for name, values in kept["validation"].items()}
    assert errors[f"{scale:g}"] < errors["100"]


def test_the_facts_are_of_these_files() -> None:
    assert kept_edition() == edition()


def test_the_demo_leaves_the_wheel_below_a_hundred_megabytes() -> None:
    assert sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file()) < 95e6
