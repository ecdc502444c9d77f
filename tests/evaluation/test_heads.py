"""Zero-shot heads from files in the layouts of the literature, and from the text tower."""

from __future__ import annotations

import os
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from dcmerge.errors import InputError
from dcmerge.evaluation.heads import read_head, text_heads
from tests.own_models import CONFIG, tiny_clip

HEAD = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("file", ["head_CarsVal.pt", "head_Cars.pt", "stanford_cars_head.pt", "cars.pt", "CARS.pt"])
def test_a_scaled_tensor_under_any_of_the_usual_names(file: str, tmp_path: Path) -> None:
    torch.save(100 * HEAD, tmp_path / file)
    found = read_head(tmp_path, ["Cars", "stanford_cars"])
    torch.testing.assert_close(found.rows, normalize(HEAD, dim=-1))
    assert found.origin == str(tmp_path / file) and found.length is None


def test_rows_of_one_length_keep_it(tmp_path: Path) -> None:
    torch.save(100 * normalize(HEAD, dim=-1), tmp_path / "cars.pt")
    assert read_head(tmp_path, ["cars"]).length == pytest.approx(100)


def test_state_dicts_and_safetensors(tmp_path: Path) -> None:
    torch.save({"weight": HEAD, "bias": torch.zeros(5)}, tmp_path / "a_head.pt")
    save_file({"weight": HEAD}, tmp_path / "b.safetensors")
    save_file({"C": HEAD, "d": 2 * HEAD}, tmp_path / "heads.safetensors")
    for name in "abcd":
        torch.testing.assert_close(read_head(tmp_path, [name]).rows, normalize(HEAD, dim=-1))


class Head(torch.nn.Linear):
    """A module of somebody's own, as the papers' heads are: opening it as a pickle needs its class, which could run code."""


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_read_without_being_run(zipped: bool, tmp_path: Path) -> None:
    module = Head(16, 5)
    with torch.no_grad():
        module.weight.copy_(100 * HEAD)
        module.bias.zero_()
    torch.save(module, tmp_path / "head_MNISTVal.pt", _use_new_zipfile_serialization=zipped)
    torch.testing.assert_close(read_head(tmp_path, ["MNIST"]).rows, normalize(HEAD, dim=-1))


class Harmful:
    """Unpickled, this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_harmful_head_is_refused_and_does_nothing(tmp_path: Path) -> None:
    torch.save({"weight": HEAD, "more": Harmful(tmp_path / "made")}, tmp_path / "x_head.pt")
    with pytest.raises(InputError, match="mkdir"):
        read_head(tmp_path, ["x"])
    assert not (tmp_path / "made").exists()


def test_what_is_no_head_is_refused(tmp_path: Path) -> None:
    torch.save(HEAD[0], tmp_path / "flat.pt")
    torch.save(HEAD * torch.nan, tmp_path / "nan.pt")
    torch.save({"weight": HEAD, "bias": torch.ones(5)}, tmp_path / "biased.pt")
    torch.save({"a": HEAD, "b": HEAD}, tmp_path / "two.pt")
    torch.save(Head(2, 2), tmp_path / "module.pt")  # with a random bias
    for name in ("flat", "nan", "biased", "two", "module", "missing"):
        with pytest.raises(InputError, match=name):
            read_head(tmp_path, [name])
    with pytest.raises(InputError, match="folder of head files"):
        read_head(tmp_path / "flat.pt", ["flat"])


def test_a_computed_head_is_the_mean_of_open_clips_embeddings() -> None:
    weights = tiny_clip()
    model = open_clip.CLIP(**CONFIG).eval()
    model.load_state_dict(weights)
    classes = [["a photo of a cat.", "the cat"], ["a dog"]]
    found = text_heads(CONFIG, weights, {"pets": classes})["pets"]
    tokenize = open_clip.SimpleTokenizer(context_length=32)
    with torch.inference_mode():
        wanted = [normalize(model.encode_text(tokenize(own), normalize=True).mean(dim=0), dim=-1) for own in classes]
    torch.testing.assert_close(found, torch.stack(wanted))
    assert not found.is_inference()  # methods that train differentiate through it


def test_without_a_text_tower_nothing_is_computed() -> None:
    weights = {name: value for name, value in tiny_clip().items() if name.startswith("visual.")}
    with pytest.raises(InputError, match="text tower"):
        text_heads(CONFIG, weights, {"x": [["a"]]})
    with pytest.raises(InputError, match="tokens"):
        text_heads({**CONFIG, "text_cfg": {"hf_model_name": "roberta"}}, weights, {"x": [["a"]]})
