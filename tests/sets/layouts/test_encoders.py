"""open_clip's names of encoders: from shapes, settings and the names of folders."""

from __future__ import annotations

import open_clip
import pytest
from transformers import CLIPVisionConfig, CLIPVisionModel

from dcmerge.sets.layouts.encoders import encoder_in_name, encoder_of
from tests.sets.layouts.builders import VISION


def shapes_of_open_clip(name: str) -> dict[str, tuple[int, ...]]:
    model = open_clip.create_model(name, device="meta", pretrained=None)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-B-32-256", "ViT-S-32-alt"])
def test_shapes_tell_the_model(name: str) -> None:
    shapes = shapes_of_open_clip(name)
    assert encoder_of(shapes, {}) == name
    tower = {n: shape for n, shape in shapes.items() if n.startswith("visual.")}
    assert encoder_of(tower, {}) == name
    assert encoder_of({n.removeprefix("visual."): shape for n, shape in tower.items()}, {}) == name


def test_openai_weights_have_the_quick_gelu() -> None:
    shapes = shapes_of_open_clip("ViT-B-32")
    assert encoder_of(shapes, {}, openai=True) == "ViT-B-32-quickgelu"
    assert encoder_of(shapes, {"model_cfg": {"quick_gelu": True}}) == "ViT-B-32-quickgelu"
    assert encoder_of(shapes_of_open_clip("ViT-B-32-256"), {}, openai=True) == "ViT-B-32-256"  # open_clip has no such model


@pytest.mark.parametrize(("act", "name"), [("quick_gelu", "ViT-B-32-quickgelu"), ("gelu", "ViT-B-32")])
def test_hugging_face_settings_tell_the_activation(act: str, name: str) -> None:
    import torch

    with torch.device("meta"):
        config = CLIPVisionConfig(hidden_size=768, intermediate_size=64, num_hidden_layers=12, patch_size=32, hidden_act=act)
        model = CLIPVisionModel(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert encoder_of(shapes, config.to_dict()) == name
    assert encoder_of(shapes, {"vision_config": config.to_dict(), "model_type": "clip"}) == name


def test_a_tower_that_open_clip_does_not_know() -> None:
    shapes = {n: tuple(v.shape) for n, v in CLIPVisionModel(CLIPVisionConfig(**VISION)).state_dict().items()}
    assert encoder_of(shapes, {}) is None
    assert encoder_in_name("clip-vit-base-patch32", shapes) is None
    assert encoder_of({"weight": (3, 3)}, {}) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("openai/clip-vit-base-patch32", "ViT-B-32-quickgelu"),
        ("tanganke_clip-vit-large-patch14_mnist", "ViT-L-14-quickgelu"),
        ("clip-vit-large-patch14-336", "ViT-L-14-336-quickgelu"),
        ("KnOTS-ViT-B-32_lora_R16", "ViT-B-32"),
        ("ViT-B-7", None),
        ("llama", None),
    ],
)
def test_names_of_folders(text: str, name: str | None) -> None:
    assert encoder_in_name(text) == name
