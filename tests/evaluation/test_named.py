"""open_clip's models by name, and what their images become."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from dcmerge.errors import InputError
from dcmerge.evaluation import Preprocess
from dcmerge.evaluation.named import activation_note, named_encoder
from tests.own_models import CONFIG, tiny_clip


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    draw = np.random.default_rng(0)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def test_a_named_encoder_is_the_tower_of_that_name() -> None:
    encoder = named_encoder("ViT-B-32-quickgelu")
    assert encoder.shapes["visual.conv1.weight"] == (768, 3, 32, 32) and encoder.shapes["visual.proj"] == (768, 512)
    assert encoder.layers == 12 and encoder.preprocess.size == (224, 224)
    assert "QuickGELU" in str(encoder.visual.transformer.resblocks[0].mlp)
    assert "QuickGELU" not in str(named_encoder("ViT-S-32").visual)


@pytest.mark.parametrize("config", [CONFIG, {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.2] * 3}}])
def test_an_encoder_from_a_file_runs_as_open_clip_does(config: dict, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(config))
    weights = tiny_clip()
    model = open_clip.CLIP(**CONFIG).eval()
    model.load_state_dict(weights)
    mean, std = ([0.5] * 3, [0.2] * 3) if "model_cfg" in config else (None, None)
    transform = open_clip.image_transform(16, is_train=False, mean=mean, std=std)
    images = [picture(20, 31), picture(40, 17)]
    encoder = named_encoder(str(path))
    found = encoder.encode(weights, torch.stack([encoder.preprocess(image) for image in images]))
    with torch.inference_mode():
        wanted = model.encode_image(torch.stack([transform(image) for image in images]), normalize=True)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("how", [{}, {"interpolation": "bilinear"}, {"resize_mode": "squash"}, {"resize_mode": "longest"}])
def test_pictures_become_what_open_clip_makes_of_them(mode: str, how: dict) -> None:
    image = picture(30, 45, mode)
    wanted = open_clip.image_transform(16, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3, **how)(image)
    torch.testing.assert_close(Preprocess((16, 16), **how)(image).float() / 255, wanted)


def test_openais_weights_with_the_other_activation_are_told() -> None:
    assert "ViT-B-32-quickgelu" in activation_note("ViT-B-32")
    assert activation_note("ViT-B-32-quickgelu") == activation_note("ViT-S-32") == activation_note("tiny.json") == ""


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**CONFIG, "multimodal_cfg": {}}, "multimodal_cfg"),
        ({**CONFIG, "custom_text": True}, "text tower"),
        ({"embed_dim": 8}, "vision_cfg"),
        ({**CONFIG, "vision_cfg": {"no_such_setting": 1}}, "can build"),
        ({**CONFIG, "vision_cfg": 7}, "can build"),
        ({"model_cfg": 3}, "configuration"),
    ],
)
def test_configurations_that_are_refused(config: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=words):
        named_encoder(str(path))


@pytest.mark.parametrize("name", ["ViT-B-33", "", "hf-hub:laion/any", "SigLIP2", "missing.json"])
def test_unknown_names_are_refused_without_a_look_at_the_network(name: str) -> None:
    with pytest.raises(InputError):
        named_encoder(name)


@pytest.mark.parametrize("name", ["ViT-S-32", "RN50-quickgelu"])
def test_a_tower_runs_where_its_weights_are(name: str) -> None:
    """Tensors of the device "meta" have no data; mixing one with a tensor of this machine's memory is an error."""
    encoder = named_encoder(name)
    weights = {weight: torch.empty(shape, device="meta") for weight, shape in encoder.shapes.items()}
    found = encoder.forward(weights, torch.zeros(2, 3, 224, 224, dtype=torch.uint8))
    assert found.device.type == "meta" and found.shape == (2, encoder.config["embed_dim"])


@pytest.mark.parametrize(
    ("preprocess", "told"),
    [
        ({"std": [0.2, 0.0, 0.2]}, "three positive numbers as the std of pixels"),
        ({"std": [0.2, -0.1, 0.2]}, "three positive numbers"),
        ({"std": 0}, "three positive numbers"),
        ({"std": [1, 1]}, "three positive numbers"),
        ({"mean": [float("nan")] * 3}, "three finite numbers as the mean"),
        ({"mean": ["0.5"] * 3}, "three finite numbers"),
        ([1], "preprocessing by its names"),
    ],
)
def test_pixels_are_normalised_by_numbers_that_can_do_it(preprocess: object, told: str, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    with pytest.raises(InputError, match=told):
        named_encoder(str(path))


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "layers", 10**7),
        ("vision_cfg", "layers", [3, 4, 10**7, 3]),
        ("vision_cfg", "width", 10**9),
        ("text_cfg", "vocab_size", 10**12),
        ("vision_cfg", "image_size", 10**6),
        ("vision_cfg", "mlp_ratio", float("inf")),
    ],
)
def test_a_tower_that_nobody_could_hold_is_not_built(part: str, key: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**CONFIG, part: {**CONFIG[part], key: value}}))
    with pytest.raises(InputError, match=f"expected {key} of at most"):
        named_encoder(str(path))
