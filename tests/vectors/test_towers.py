"""Experts that are the image tower of a wider base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcmerge import TaskVectors
from dcmerge.errors import IncompatibleSet
from dcmerge.vectors.towers import tower_of
from tests.builders import write
from tests.sets.layouts.builders import clip, image_encoder, moved

NAMES = ("visual.proj", "visual.conv1.weight", "transformer.w", "token_embedding.weight", "logit_scale")


@pytest.mark.parametrize(
    ("own", "outside"),
    [
        (["visual.proj", "visual.conv1.weight"], ("transformer.w", "token_embedding.weight", "logit_scale")),
        (["visual.proj", "visual.conv1.weight", "other.extra"], ("transformer.w", "token_embedding.weight", "logit_scale")),
        (["visual.proj", "visual.conv1.weight", "token_embedding.weight", "logit_scale"], ("transformer.w",)),
        (["visual.proj"], None),
        (["visual.proj", "visual.conv1.weight", "transformer.w", "token_embedding.weight"], None),
        (["transformer.w"], None),
        (list(NAMES), None),
        ([], None),
    ],
)
def test_a_tower_is_whole_and_named(own: list[str], outside: tuple[str, ...] | None) -> None:
    found = tower_of(NAMES, [own, own])
    assert (found and found.outside) == outside


def test_experts_of_different_width_are_no_tower() -> None:
    assert tower_of(NAMES, [["visual.proj", "visual.conv1.weight"], list(NAMES)]) is None


def test_a_tower_below_another_name() -> None:
    names = ("model.vision_tower.a.weight", "model.vision_tower.b.weight", "model.layers.0.weight")
    assert tower_of(names, [names[:2]]).outside == names[2:]


def test_the_rest_stays_as_in_the_base(tmp_path: Path) -> None:
    weights = clip(0).state_dict()
    base = write(tmp_path / "base.safetensors", weights)
    own = moved({n: v for n, v in weights.items() if n.startswith("visual.")}, 1)
    vectors = TaskVectors.open(base, {"a": write(tmp_path / "a.safetensors", own)})
    assert set(vectors.parameters) == set(own)
    assert vectors.report.counts()["skipped"] == len(weights) - len(own)
    (finding,) = [f for f in vectors.report.findings if f.what == "tower"]
    assert finding.level == "note" and "visual.*" in finding.text and "logit_scale" in finding.parameters
    torch.testing.assert_close(vectors.delta("visual.proj", "a"), own["visual.proj"] - weights["visual.proj"])


def test_an_image_encoder_of_task_arithmetic_beside_a_whole_clip(tmp_path: Path) -> None:
    base = write(tmp_path / "base.safetensors", clip(0).state_dict())
    vectors = TaskVectors.open(base, {"a": write(tmp_path / "a.safetensors", moved(image_encoder(clip(0)), 1))})
    assert "token_embedding.weight" in vectors.parameters
    assert not any(name.startswith("transformer.") for name in vectors.parameters)


def test_too_small_a_part_that_is_no_tower_is_refused(tmp_path: Path) -> None:
    weights = clip(0).state_dict()
    base = write(tmp_path / "base.safetensors", weights)
    own = {"visual.conv1.weight": weights["visual.conv1.weight"], "logit_scale": weights["logit_scale"]}
    with pytest.raises(IncompatibleSet, match="fewer than half"):
        TaskVectors.open(base, {"a": write(tmp_path / "a.safetensors", own)})
