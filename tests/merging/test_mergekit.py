"""mergekit's configurations: what each means is compared with its formulas written out; what cannot be expressed is named.

The formulas are those of mergekit 0.1.5, float32, one parameter at a time.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from dcmerge import InputError, Recipe, TaskVectors, merge
from dcmerge.checkpoints.documents import parsed_document
from dcmerge.merging.mergekit import from_mergekit, to_mergekit
from dcmerge.merging.recipe import inputs_of
from dcmerge.merging.running import prepare, read_source
from tests.builders import random_tensors, write

SHAPES = {"embed.weight": (7, 6), "mlp.weight": (5, 6), "norm.weight": (6,)}
MODELS = ("base", "a", "b", "c")


@pytest.fixture
def models(tmp_path: Path) -> dict[str, dict[str, Tensor]]:
    """A base and three experts as folders, one of whose parameters the experts move in opposing directions."""
    base = random_tensors(0, SHAPES)
    found = {"base": base}
    for seed, name in enumerate(MODELS[1:], start=1):
        found[name] = {n: base[n] + 0.1 * d for n, d in random_tensors(seed, SHAPES).items()}
    found["b"]["norm.weight"] = base["norm.weight"] - (found["a"]["norm.weight"] - base["norm.weight"])
    for name, tensors in found.items():
        write(tmp_path / name / "model.safetensors", tensors)
    return found


def config(
    method: str, experts: str | list[str] = "abc", base: str | None = "base", own: dict[str, Any] | None = None, **shared: Any
) -> dict[str, Any]:
    """A configuration with the same settings for every model; ``lambda_`` is lambda."""
    settings = {name.rstrip("_"): value for name, value in shared.items()}
    entries = [{"model": name, **({"parameters": dict(own)} if own else {})} for name in experts]
    return {
        "merge_method": method,
        **({"base_model": base} if base else {}),
        "models": entries,
        **({"parameters": settings} if settings else {}),
    }


def merged(folder: Path, document: dict[str, Any]) -> dict[str, Tensor]:
    (folder / "merge.yml").write_text(yaml.safe_dump(document))
    ready = prepare(read_source(folder / "merge.yml"))
    ready.run(folder / "out.safetensors")
    return load_file(folder / "out.safetensors")


def largest(delta: Tensor, first: int, count: int) -> Tensor:
    kept = torch.zeros(delta.numel())
    kept[delta.abs().flatten().argsort(descending=True)[first : first + count]] = 1
    return delta * kept.reshape(delta.shape)


def drawn(delta: Tensor, density: float, name: str, task: str, rescale: bool) -> Tensor:
    draw = torch.Generator().manual_seed(zlib.crc32(f"0 {name} {task}".encode()))
    kept = delta * (torch.rand(delta.shape, generator=draw) < density)
    return kept * (delta.abs().sum() / kept.abs().sum()) if rescale and kept.any() else kept


def combined(D: Tensor, w: float, lam: float, *, elect: bool, normalize: bool) -> Tensor:
    """λ Σ w D, with the signs elected and the weights normalised where mergekit does."""
    weighted, weights = w * D, torch.full_like(D, w)
    if elect:
        agrees = weighted.sign() == torch.where(weighted.sum(dim=0) >= 0, 1.0, -1.0)
        weighted, weights = weighted * agrees, weights * agrees
    divisor = weights.sum(dim=0)
    return lam * weighted.sum(dim=0) / (torch.where(divisor == 0, 1.0, divisor) if normalize else 1.0)


def of_deltas(change: Callable[[Tensor, str, str], Tensor], w: float, lam: float, **how: bool) -> Callable[..., Tensor]:
    def formula(name: str, base: Tensor, experts: dict[str, Tensor]) -> Tensor:
        D = torch.stack([change(expert - base, name, task) for task, expert in experts.items()])
        return base + combined(D, w, lam, **how)

    return formula


def share(density: float) -> Callable[[Tensor, str, str], Tensor]:
    return lambda d, name, task: largest(d, 0, max(1, int(density * d.numel())))


def middle(density: float, gamma: float) -> Callable[[Tensor, str, str], Tensor]:
    return lambda d, name, task: largest(d, int(gamma * d.numel()), int(density * d.numel()))


def random_share(density: float, rescale: bool) -> Callable[[Tensor, str, str], Tensor]:
    return lambda d, name, task: drawn(d, density, name, task, rescale)


def whole(d: Tensor, name: str, task: str) -> Tensor:
    return d


def stock(name: str, base: Tensor, experts: dict[str, Tensor]) -> Tensor:
    D = [(expert - base).flatten() for expert in experts.values()]
    cosines = [torch.cosine_similarity(x, y, dim=0) for i, x in enumerate(D) for y in D[i + 1 :]]
    c, K = sum(cosines) / len(cosines), len(D)
    t = K * c / (1 + (K - 1) * c)
    return t * sum(experts.values()) / K + (1 - t) * base


OWN = {"weight": 0.4, "density": 0.5}
FORMULAS = {
    "task_arithmetic": (
        config("task_arithmetic", own={"weight": 0.4}, lambda_=1.2),
        of_deltas(whole, 0.4, 1.2, elect=False, normalize=False),
    ),
    "task_arithmetic, normalised": (
        config("task_arithmetic", own={"weight": 0.4}, normalize=True, lambda_=0.9),
        of_deltas(whole, 0.4, 0.9, elect=False, normalize=True),
    ),
    "ties": (config("ties", own=OWN, lambda_=0.8), of_deltas(share(0.5), 0.4, 0.8, elect=True, normalize=True)),
    "ties, not normalised": (
        config("ties", own=OWN, normalize=False),
        of_deltas(share(0.5), 0.4, 1, elect=True, normalize=False),
    ),
    "ties of one entry": (
        config("ties", own=OWN | {"density": 0.01}),
        of_deltas(share(0.01), 0.4, 1, elect=True, normalize=True),
    ),
    "dare_linear": (config("dare_linear", own=OWN), of_deltas(random_share(0.5, True), 0.4, 1, elect=False, normalize=False)),
    "dare_linear, not rescaled": (
        config("dare_linear", own=OWN, rescale=False),
        of_deltas(random_share(0.5, False), 0.4, 1, elect=False, normalize=False),
    ),
    "dare_ties": (config("dare_ties", own=OWN), of_deltas(random_share(0.5, True), 0.4, 1, elect=True, normalize=False)),
    "dare_ties, normalised": (
        config("dare_ties", own=OWN, normalize=True),
        of_deltas(random_share(0.5, True), 0.4, 1, elect=True, normalize=True),
    ),
    "breadcrumbs": (config("breadcrumbs", own=OWN, gamma=0.1), of_deltas(middle(0.5, 0.1), 0.4, 1, elect=False, normalize=False)),
    "breadcrumbs, everything": (
        config("breadcrumbs", own={"weight": 0.4}, gamma=0.1),
        of_deltas(whole, 0.4, 1, elect=False, normalize=False),
    ),
    "model_stock": (config("model_stock"), stock),
}


@pytest.mark.parametrize("what", FORMULAS)
def test_a_configuration_means_what_mergekit_computes(models: dict, tmp_path: Path, what: str) -> None:
    document, formula = FORMULAS[what]
    found = merged(tmp_path, document)
    for name in SHAPES:
        experts = {task: models[task][name] for task in "abc"}
        torch.testing.assert_close(found[name], formula(name, models["base"][name], experts), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("document", "counted"),
    [
        (config("linear", base=None, own={"weight": 2}), "abc"),
        (config("linear", "ab", base=None, own={"weight": 0.5}, normalize=False), "ab"),
        (config("linear", "ab", base="base", weight=1), ["a", "b", "base"]),
        (config("linear", ["base", "a"], base="base", weight=1), ["a", "base"]),
    ],
    ids=["no base", "sum to one", "base added", "base listed"],
)
def test_linear_is_the_average_of_all_that_it_lists(models: dict, tmp_path: Path, document: dict, counted: str) -> None:
    found = merged(tmp_path, document)
    for name in SHAPES:
        mean = torch.stack([models[one][name] for one in counted]).mean(dim=0)
        torch.testing.assert_close(found[name], mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("experts", ["ab", "ba", "b"])
def test_slerp_goes_from_the_base_to_the_other(models: dict, tmp_path: Path, experts: str) -> None:
    found = merged(tmp_path, config("slerp", experts, base="a", t=0.3))
    for name in SHAPES:
        x, y = models["a"][name], models["b"][name]
        omega = math.acos(float((x * y).sum() / (x.norm() * y.norm())))
        arc = (math.sin(0.7 * omega) * x + math.sin(0.3 * omega) * y) / math.sin(omega)
        torch.testing.assert_close(found[name], arc, rtol=1e-4, atol=1e-5)


def test_karcher_of_two_is_half_way_on_the_arc(models: dict, tmp_path: Path) -> None:
    found = merged(tmp_path, config("karcher", "ab", base=None, max_iter=50))
    for name in SHAPES:
        x, y = models["a"][name], models["b"][name]
        middle_ = x / x.norm() + y / y.norm()
        torch.testing.assert_close(found[name], (x.norm() + y.norm()) / 2 * middle_ / middle_.norm(), rtol=1e-4, atol=1e-5)


def test_what_has_no_effect_there_is_noted(models: dict, tmp_path: Path) -> None:
    document = config("task_arithmetic", own={"weight": 1, "density": 0.5}, gamma=3) | {"dtype": "bfloat16"}
    notes = " | ".join(from_mergekit(document)[1])
    assert "density of a has no effect on task_arithmetic" in notes and "gamma has no effect" in notes
    assert "mergekit computes in bfloat16" in notes
    assert any("random draws" in note for note in from_mergekit(config("dare_ties", own=OWN))[1])


def test_a_model_of_the_hub_is_not_downloaded(models: dict, tmp_path: Path) -> None:
    document = config("linear", base=None, own={"weight": 1})
    document["models"][0]["model"] = "meta-llama/Llama-3"
    (tmp_path / "merge.yml").write_text(yaml.safe_dump(document))
    source = read_source(tmp_path / "merge.yml")
    with pytest.raises(InputError, match=r"expected the file meta-llama/Llama-3 .*nothing is downloaded"):
        prepare(source)
    ready = prepare(source, {"base": str(tmp_path / "a"), "Llama-3": str(tmp_path / "a")})
    assert ready.vectors.tasks == ("Llama-3", "b", "c")


def test_the_dtype_that_is_asked_for_is_written(models: dict, tmp_path: Path) -> None:
    asked = config("task_arithmetic", own={"weight": 1})
    for key in ("dtype", "out_dtype"):
        assert {value.dtype for value in merged(tmp_path, asked | {key: "bfloat16"}).values()} == {torch.bfloat16}
    wide = merged(tmp_path, asked | {"dtype": "bfloat16", "out_dtype": "float32"})
    assert {value.dtype for value in wide.values()} == {torch.float32}


def entry(model: str, **own: Any) -> dict[str, Any]:
    return {"model": model, "parameters": own}


def with_(document: dict, **changes: Any) -> dict:
    return {**document, **changes}


TA, TIES = config("task_arithmetic", own={"weight": 1}), config("ties", own=OWN)
REFUSED: dict[str, tuple[dict, str]] = {
    "slices": (with_(TA, slices=[]), "slices: .* got slices of layers"),
    "modules": (with_(TA, modules={}), "modules: "),
    "tokenizer_source": (with_(TA, tokenizer_source="union"), "tokenizer_source: .* another tokenizer"),
    "tokenizer": (with_(TA, tokenizer={"source": "union"}), "tokenizer: "),
    "chat_template": (with_(TA, chat_template="auto"), "chat_template: "),
    "an unknown key": (with_(TA, nmae="x"), "unknown key 'nmae'"),
    **{
        slug: (with_(TA, merge_method=slug), f"merge_method: expected one of linear, .* got '{slug}'")
        for slug in ("della", "della_linear", "nuslerp", "arcee_fusion", "passthrough", "sce", "breadcrumbs_ties", "multislerp")
    },
    "no text as method": (with_(TA, merge_method=["ties"]), "merge_method: "),
    "no models": (with_(TA, models=[]), "models: expected a list of models"),
    "models as text": (with_(TA, models="a"), "models: expected a list of models"),
    "an entry of text": (with_(TA, models=["a"]), "models: expected entries with model and parameters"),
    "an entry with more": (with_(TA, models=[{"model": "a", "layer_range": [0, 2]}]), "models: expected entries"),
    "a model twice": (with_(TA, models=[{"model": "a"}, {"model": "a"}]), "every model once, got a twice"),
    "an adapter on top": (with_(TA, base_model="base+adapter"), "base_model: .* an adapter on top of it: base.adapter"),
    "an adapter as key": (with_(TA, models=[{"model": {"model": {"path": "a"}, "lora": {"path": "l"}}}]), "model: .* got lora"),
    "a revision": (with_(TA, base_model="org/m@main"), "a revision"),
    "another architecture": (with_(TA, base_model={"model": "a", "override_architecture": "X"}), "override_architecture"),
    "a number as model": (with_(TA, base_model=3), "base_model: expected a local path, got 3"),
    "other densities": (
        with_(TIES, models=[entry("a", weight=1, density=1), entry("b", weight=1, density=0.5)]),
        "density: expected the same",
    ),
    "no weight": (config("ties", own={"density": 0.5}), "weight: mergekit asks for one, got none for a"),
    "a gradient": (config("ties", own=OWN | {"density": [1, 0.7, 0.1]}), "density: .* got a gradient over the layers"),
    "a filter": (
        config("ties", own=OWN | {"weight": [{"filter": "mlp", "value": 0.5}, {"value": 1}]}),
        "weight: .* got a filter",
    ),
    "one filter": (config("slerp", "b", base="a", t={"filter": "mlp", "value": 0.5}), "t: .* got a filter"),
    "a word": (config("ties", own=OWN | {"weight": "much"}), "weight: expected a number, got 'much' for a"),
    "a flag as number": (config("ties", own=OWN | {"weight": True}), "weight: expected a number, got True"),
    "infinity": (config("ties", own=OWN | {"weight": math.inf}), "weight: expected a number, got inf"),
    "a number as flag": (config("ties", own=OWN, normalize=1), "normalize: expected true or false, got 1"),
    "a negative weight": (config("ties", own=OWN | {"weight": -1}), "weight: expected more than 0"),
    "int8_mask": (config("ties", own=OWN, int8_mask=True), "int8_mask: expected false .*changes no result"),
    "rescale": (config("ties", own=OWN, rescale=True), "rescale: expected false"),
    "too many outliers": (config("breadcrumbs", own=OWN, gamma=0.6), "gamma: expected at most 1 - density = 0.5, got 0.6"),
    "no density at all": (config("dare_ties", own=OWN | {"density": 0}), "density: expected a number in"),
    "filter_wise": (config("model_stock", filter_wise=True), "filter_wise: expected false"),
    "model_stock of one": (config("model_stock", "a"), "asks for two besides base_model"),
    "karcher's tolerance": (config("karcher", base=None, tol=0.1), "tol: expected 1e-05, got 0.1"),
    "karcher's steps": (config("karcher", base=None, max_iter=0), "iterations: expected an integer in"),
    "no base": (config("ties", base=None, own=OWN), "base_model: ties asks for one, got none"),
    "the base alone": (config("ties", ["base"], own=OWN), "models: expected one besides base_model"),
    "slerp of three": (config("slerp", t=0.5), "slerp asks for base_model and one other, got 4"),
    "slerp without t": (config("slerp", "b", base="a"), "t: mergekit asks for one"),
    "weights that do not sum to 1": (config("linear", base=None, own={"weight": 1}, normalize=False), "got a sum of 3"),
    "weights of nothing": (config("linear", base=None, own={"weight": 0}), "weight: expected weights whose sum is not 0"),
    "a dtype": (with_(TA, dtype="fp8"), "dtype: expected one of float16, bfloat16, float32, float64, got 'fp8'"),
    "parameters as text": (with_(TA, parameters="x"), "parameters: expected names with values"),
    "too much": (config("task_arithmetic", own={"weight": 1e9}), "scale: expected a number in"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_expressed_is_named(what: str) -> None:
    document, words = REFUSED[what]
    with pytest.raises(InputError, match=words) as error:
        from_mergekit(document, "merge.yml")
    assert str(error.value).startswith("merge.yml: ") and len(str(error.value).splitlines()) == 1


BACK = {
    "average": {},
    "task_arithmetic": {},
    "ties": {"density": 0.3, "trim": "parameter"},
    "model_stock": {"limit": False},
    "dare": {"density": 0.3, "rescale": "l1", "combine": "elected_mean"},
    "breadcrumbs": {"form": "mergekit", "density": 0.3, "gamma": 0.1},
    "karcher": {"iterations": 7},
}


@pytest.mark.parametrize("slug", BACK)
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_what_is_written_means_the_same_again(models: dict, tmp_path: Path, slug: str, scale: float) -> None:
    vectors = TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "abc"})
    result = merge(vectors, slug, **BACK[slug])
    recipe = result.recipe(scale, "given", "float32").beside(tmp_path)
    if scale != 1 and slug in ("model_stock", "karcher"):
        with pytest.raises(InputError, match=f"{slug}: mergekit cannot express scale 0.7, expected 1"):
            to_mergekit(recipe)
        return
    found = merged(tmp_path, parsed_document(to_mergekit(recipe)))
    result.save(tmp_path / "wanted.safetensors", scale=scale)
    for name, value in load_file(tmp_path / "wanted.safetensors").items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_slerp_is_written_from_its_first_expert(models: dict, tmp_path: Path) -> None:
    vectors = TaskVectors.open(tmp_path / "base", {name: tmp_path / name for name in "ca"})
    result = merge(vectors, "slerp", position=0.25)
    document = parsed_document(to_mergekit(result.recipe(1.0).beside(tmp_path)))
    assert document["base_model"] == "c" and document["parameters"] == {"t": 0.25}
    found = merged(tmp_path, document)
    result.save(tmp_path / "wanted.safetensors")
    for name, value in load_file(tmp_path / "wanted.safetensors").items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


FILES = {"base": {"file": "b"}, "x": {"file": "x"}, "y": {"file": "y"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "dc_merge"}, "mergekit has no dc_merge, expected one of average"),
        ({"method": "ties"}, "ties: mergekit cannot express trim model, expected parameter"),
        ({"method": "dare"}, "dare: mergekit cannot express rescale density, expected l1 or none"),
        ({"method": "model_stock", "scale": 1.0}, "model_stock: mergekit cannot express limit True, expected False"),
        ({"method": "breadcrumbs", "parameters": {"form": "mergekit", "gamma": 0.2}}, "density . gamma exceed 1"),
        ({"method": "average", "content": "delta"}, "expected one, got a delta"),
        ({"method": "emr", "task": "x"}, "expected one, got one task's"),
        ({"method": "average", "inputs": {"x": {"file": "x"}}}, "expected a base, got adapters alone"),
        ({"method": "average", "dtype": "bfloat16+float32"}, "dtype: mergekit writes one for all parameters"),
    ],
)
def test_what_mergekit_cannot_express_is_named(change: dict[str, Any], words: str) -> None:
    recipe = Recipe.of({"inputs": FILES, **change})
    with pytest.raises(InputError, match=words):
        to_mergekit(recipe)


def test_the_dtypes_are_written(models: dict, tmp_path: Path) -> None:
    inputs = inputs_of(TaskVectors.open(tmp_path / "base", {"a": tmp_path / "a"}))
    for written, wanted in (("bfloat16+int64", {"dtype": "float32", "out_dtype": "bfloat16"}), ("float32", {"dtype": "float32"})):
        document = parsed_document(to_mergekit(Recipe.of({"inputs": inputs, "method": "average", "dtype": written})))
        assert {key: document[key] for key in document if "dtype" in key} == wanted
