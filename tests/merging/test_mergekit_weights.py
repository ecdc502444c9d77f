"""mergekit's weights that differ by model, and its gradients over the layers, against its formulas in float64.

mergekit 0.1.5 itself agreed with all of these within 1e-6 on a tiny LLaMA, both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from dcmerge import InputError, TaskVectors, merge
from dcmerge.checkpoints.documents import parsed_document
from dcmerge.merging.mergekit import from_mergekit, to_mergekit
from dcmerge.merging.running import prepare, read_source
from tests.builders import random_tensors, write

LAYERS = 5
SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    **{f"model.layers.{layer}.mlp.up_proj.weight": (5, 6) for layer in range(LAYERS)},
    "model.norm.weight": (6,),
    "lm_head.weight": (7, 6),
}
CONSTANT, GRADIENT, ONE = (0.9, 0.3, 0.6), ([0.2, 1.0], [0.5, 0.1, 0.9], 0.4), ([0.2, 0.6], [0.5, 0.1], 0.3)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, dict[str, Tensor]]:
    base = random_tensors(0, SHAPES)
    found = {"base": base}
    for seed, name in enumerate("abc", start=1):
        found[name] = {n: base[n] + 0.1 * d for n, d in random_tensors(seed, SHAPES).items()}
    for name, tensors in found.items():
        write(tmp_path / name / "model.safetensors", tensors)
    return found


def config(method: str, weights: tuple, own: dict[str, Any] | None = None, **shared: Any) -> dict[str, Any]:
    models = [{"model": name, "parameters": {"weight": w, **(own or {})}} for name, w in zip("abc", weights, strict=True)]
    settings = {name.rstrip("_"): value for name, value in shared.items()}
    base = {} if method == "linear" else {"base_model": "base"}
    return {"merge_method": method, **base, "models": models, "parameters": settings}


def at(setting: Any, name: str) -> float:
    """mergekit's value of a setting at a tensor: interpolated over the layers, the first value outside them."""
    if not isinstance(setting, list):
        return setting
    t = int(name.split(".")[2]) / (LAYERS - 1) if ".layers." in name else 0.0
    place = t * (len(setting) - 1)
    i = int(place)
    return (1 - place + i) * setting[i] + (place - i) * setting[min(i + 1, len(setting) - 1)]


Formula = Callable[[Tensor, Tensor], Tensor]


def mean(D: Tensor, w: Tensor) -> Tensor:
    return (w * D).sum(dim=0) / w.sum()


def added(D: Tensor, w: Tensor) -> Tensor:
    return (w * D).sum(dim=0)


def ties(normalize: bool) -> Formula:
    def formula(D: Tensor, w: Tensor) -> Tensor:
        cut = torch.stack([d.abs().flatten().sort(descending=True).values[max(1, int(0.5 * d.numel())) - 1] for d in D])
        weighted = w * D * (D.abs() >= cut.reshape(w.shape))
        agrees = weighted.sign() == torch.where(weighted.sum(dim=0) >= 0, 1.0, -1.0)
        total, divisor = (weighted * agrees).sum(dim=0), (w * agrees).sum(dim=0)
        return total / torch.where(divisor == 0, 1.0, divisor) if normalize else total

    return formula


HALF = {"density": 0.5}
CASES: dict[str, tuple[dict[str, Any], Formula]] = {
    "linear": (config("linear", CONSTANT), mean),
    "linear, a gradient": (config("linear", GRADIENT), mean),
    "linear, as they are": (config("linear", ONE, normalize=False), added),
    "task_arithmetic": (config("task_arithmetic", CONSTANT, lambda_=0.7), added),
    "task_arithmetic, signs": (config("task_arithmetic", (1, -0.5, [0, 1]), lambda_=0.7), added),
    "task_arithmetic, lambda": (config("task_arithmetic", GRADIENT, lambda_=[0.5, 1.5, 0.9]), added),
    "task_arithmetic, normalised": (config("task_arithmetic", GRADIENT, lambda_=[0.5, 1.5], normalize=True), mean),
    "ties": (config("ties", GRADIENT, HALF, lambda_=0.8), ties(True)),
    "ties, not normalised": (config("ties", CONSTANT, HALF, lambda_=0.8, normalize=False), ties(False)),
    "ties, lambda alone": (config("ties", (0.4, 0.4, 0.4), HALF, lambda_=[0.8, 1.0]), ties(True)),
    "dare_linear, all kept": (config("dare_linear", CONSTANT, {"density": 1}, normalize=True), mean),
    "breadcrumbs, all kept": (config("breadcrumbs", GRADIENT, {"density": 1}), added),
}


def run(folder: Path, document: dict[str, Any]) -> dict[str, Tensor]:
    (folder / "merge.yml").write_text(yaml.safe_dump(document))
    prepare(read_source(folder / "merge.yml")).run(folder / "out.safetensors")
    return load_file(folder / "out.safetensors")


@pytest.mark.parametrize("what", CASES)
def test_weights_and_gradients_mean_what_mergekit_computes(models: dict, tmp_path: Path, what: str) -> None:
    document, formula = CASES[what]
    found = run(tmp_path, document)
    weights = [entry["parameters"]["weight"] for entry in document["models"]]
    for name, base in models["base"].items():
        D = torch.stack([models[expert][name] - base for expert in "abc"]).double()
        w = torch.tensor([at(one, name) for one in weights], dtype=torch.float64).reshape(-1, *[1] * base.ndim)
        wanted = base.double() + at(document["parameters"].get("lambda", 1.0), name) * formula(D, w)
        torch.testing.assert_close(found[name].double(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("what", CASES)
def test_what_is_written_means_the_same_again(models: dict, tmp_path: Path, what: str) -> None:
    before = run(tmp_path, CASES[what][0])
    recipe = prepare(read_source(tmp_path / "out.safetensors"), search=[str(tmp_path)]).recipe
    files = {name: {**one, "file": name} for name, one in recipe.to_data()["inputs"].items()}
    again = type(recipe).of(recipe.to_data() | {"inputs": files})
    after = run(tmp_path, parsed_document(to_mergekit(again)))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            config("breadcrumbs", GRADIENT, HALF, normalize=True),
            "weight: expected one number a model where breadcrumbs normalises",
        ),
        (config("linear", GRADIENT, normalize=False), "got a sum of 1.1 to 2.3"),
        (config("linear", (1, -1, 0)), "weight: expected weights whose sum is not 0"),
        (config("ties", ([0.1, 0], 1, 1), HALF), "weight: expected more than 0 .* got 0"),
        (config("ties", ([], 1, 1), HALF), "weight: mergekit asks for one, got none for a"),
        (config("ties", ([1, "x"], 1, 1), HALF), "weight: expected a number, got 'x' for a"),
        (config("ties", ([1, {"value": 2}], 1, 1), HALF), "weight: .* got a filter"),
        (config("task_arithmetic", (1, 1, 2000)), r"weight of c: expected a number in \[-1000, 1000\]"),
    ],
)
def test_what_has_no_meaning_here_is_named(document: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        from_mergekit(document, "merge.yml")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("slug", "mix", "words"),
    [
        ("model_stock", {"weights": {"a": 2}}, "mergekit's model_stock has no weights"),
        ("ties", {"weights": {"a": -1}}, "normalises weights of one sign"),
    ],
)
def test_what_mergekit_cannot_weigh_is_named(models: dict, tmp_path: Path, slug: str, mix: dict, words: str) -> None:
    vectors = TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "abc"}).mixed(**mix)
    settings = {"limit": False} if slug == "model_stock" else {"trim": "parameter"}
    with pytest.raises(InputError, match=words):
        to_mergekit(merge(vectors, slug, **settings).recipe(1.0))
