"""Merging end to end: what is written, in which names and dtypes, and with which recipe."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import dcmerge
from dcmerge import Cancelled, InputError, TaskVectors, merge, merge_to_file
from dcmerge.checkpoints import write_safetensors
from dcmerge.merging.merge import Merged
from dcmerge.merging.recipe import METADATA_KEY, Recipe, check_scale
from tests.builders import SHAPES, full_set, lora_set, random_deltas, random_factors, random_tensors, write

BASE = random_tensors(0)
BUFFER = torch.arange(7, dtype=torch.int64)


@pytest.fixture
def merged(tmp_path: Path) -> Merged:
    return merge(full_set(tmp_path / "in", random_deltas(2), BASE), "task_arithmetic")


def recipe_in(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[METADATA_KEY])


def test_a_merged_model_is_base_plus_scale_times_merged(merged: Merged, tmp_path: Path) -> None:
    merged.save(tmp_path / "out.safetensors", scale=0.5)
    found, deltas = load_file(tmp_path / "out.safetensors"), random_deltas(2)
    assert found.keys() == BASE.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, BASE[name] + 0.5 * (deltas["task0"][name] + deltas["task1"][name]))
        assert value.shape == SHAPES[name]


def test_scale_zero_is_the_base(merged: Merged, tmp_path: Path) -> None:
    merged.save(tmp_path / "out.safetensors", scale=0)
    assert all(torch.equal(value, BASE[name]) for name, value in load_file(tmp_path / "out.safetensors").items())


def test_the_delta_alone_is_float32_and_not_added(merged: Merged, tmp_path: Path) -> None:
    merged.save(tmp_path / "delta.safetensors", scale=2.0, delta_only=True)
    found = load_file(tmp_path / "delta.safetensors")
    assert found.keys() == merged.deltas.keys()
    for name, delta in found.items():
        assert delta.dtype == torch.float32 and torch.equal(delta, 2 * merged.deltas[name])
    with safe_open(tmp_path / "delta.safetensors", "pt") as file:
        assert file.metadata()["content"] == "delta"


def wrapped(folder: Path) -> TaskVectors:
    """A half-precision base in a wrapper's names, with a buffer and one float32 parameter; plain float32 experts."""
    base = {name: value.half() for name, value in BASE.items()} | {"position_ids": BUFFER}
    base["visual.ln.bias"] = BASE["visual.ln.bias"]
    source = write(folder / "base.safetensors", base, prefix="model.")
    experts = {
        task: write(folder / f"{task}.safetensors", {name: BASE[name] + delta for name, delta in own.items()})
        for task, own in random_deltas(2).items()
    }
    return TaskVectors.open(source, experts)


def test_names_dtypes_and_buffers_are_those_of_the_base(tmp_path: Path) -> None:
    vectors = wrapped(tmp_path)
    merge(vectors, "average").save(tmp_path / "out.safetensors", scale=0.3)
    found, base = load_file(tmp_path / "out.safetensors"), load_file(tmp_path / "base.safetensors")
    assert {name: value.dtype for name, value in found.items()} == {name: value.dtype for name, value in base.items()}
    assert torch.equal(found["model.position_ids"], BUFFER)
    name = "visual.mlp.c_fc.weight"
    delta = torch.stack(vectors.deltas(name)).mean(dim=0)
    assert torch.equal(found[f"model.{name}"], (base[f"model.{name}"].float() + 0.3 * delta).half())
    reopened = TaskVectors.open(tmp_path / "base.safetensors", {"merged": tmp_path / "out.safetensors"})
    assert not reopened.report.errors and set(reopened.parameters) == set(vectors.parameters)


def test_the_recipe_is_in_the_metadata(tmp_path: Path) -> None:
    vectors = wrapped(tmp_path)
    merge(vectors, "dc_merge", smoothing="linear").save(tmp_path / "out.safetensors", scale=0.8, scale_origin="chosen")
    recipe = recipe_in(tmp_path / "out.safetensors")
    assert recipe["method"] == "dc_merge" and recipe["scale"] == 0.8 and recipe["scale_origin"] == "chosen"
    assert recipe["parameters"] == dcmerge.methods()["dc_merge"].defaults() | {"smoothing": "linear"}
    assert recipe["dtype"] == "float16+float32+int64"
    assert recipe["versions"] == {"dcmerge": recipe["versions"]["dcmerge"], "torch": torch.__version__}
    digests = {
        name: hashlib.sha256((tmp_path / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("base", "task0", "task1")
    }
    assert {name: entry["sha256"] for name, entry in recipe["inputs"].items()} == digests
    assert {entry["file"] for entry in recipe["inputs"].values()} == {f"{name}.safetensors" for name in digests}


def test_a_recipe_survives_its_text_form() -> None:
    recipe = Recipe({"base": {"file": "b", "sha256": "0"}}, "ties", {"density": 0.2}, 0.3)
    assert Recipe(**json.loads(recipe.to_json())) == recipe


HASH = "0" * 64
WHOLE: dict[str, Any] = {
    "inputs": {"base": {"file": "b.safetensors", "sha256": HASH}, "z": {"file": "z/"}, "a": {"file": "sub/a.pt", "sha256": HASH}},
    "method": "dc_merge",
    "parameters": {"rank": "auto", "rho": 2.5},
    "scale": 1,
    "scale_origin": "by hand",
    "dtype": "float32",
    "qkv": "split",
    "content": "delta",
    "task": "a",
    "arithmetic": "float64",
    "tolerance": 0.001,
    "zoo": None,
    "versions": {"dcmerge": "0.1", "torch": "2.10"},
}


def test_a_whole_recipe_is_read_and_written_in_both_forms() -> None:
    recipe = Recipe.of(WHOLE)
    assert list(recipe.inputs) == ["base", "z", "a"] and recipe.parameters["rank"] is None and recipe.parameters["rho"] == 2.5
    assert isinstance(recipe.scale, float) and recipe.parameters.keys() == dcmerge.methods()["dc_merge"].parameters.keys()
    for text in (recipe.to_yaml(), recipe.to_json(), recipe.text_for("r.yml"), recipe.text_for("r.json")):
        again = Recipe.from_text(text)
        assert again == recipe and list(again.inputs) == list(recipe.inputs)
    assert recipe.to_json().startswith("{") and recipe.to_yaml().startswith("method: dc_merge")


def test_every_method_survives_its_text_form() -> None:
    for slug, one in dcmerge.methods().items():
        recipe = Recipe.of({"inputs": {"a": {"file": "a"}}, "method": slug})
        assert recipe.parameters == one.defaults() and recipe.scale == one.usual_scale
        assert Recipe.from_text(recipe.to_yaml()) == recipe == Recipe.from_text(recipe.to_json())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methd": "ties"}, "expected inputs, method, .* got the unknown key 'methd'"),
        ({"method": None}, "method: expected a method's slug, got none"),
        ({"method": "mean"}, "method: expected one of average"),
        ({"method": 3}, "method: expected a text, got 3"),
        ({"parameters": {"k": 1}}, "dc_merge: expected rank, .* got the unknown parameter 'k'"),
        ({"parameters": {"rho": "5"}}, "rho: expected a number in .*, got '5'"),
        ({"parameters": [1]}, r"parameters: expected names with values, got \[1\]"),
        ({"inputs": None}, "inputs: expected at least one expert"),
        ({"inputs": {}}, "inputs: expected at least one expert"),
        ({"inputs": {"base": {"file": "b"}}}, "inputs: expected at least one expert"),
        ({"inputs": {"a": "a.safetensors"}}, "inputs.a: expected names with values"),
        ({"inputs": {"a": {"sha256": HASH}}}, "inputs.a.file: expected a text, got None"),
        ({"inputs": {"a": {"file": "x\0y"}}}, "inputs.a.file: expected a text"),
        ({"inputs": {"a": {"file": "a", "hash": HASH}}}, "inputs.a: expected file and sha256, got the unknown key 'hash'"),
        ({"inputs": {"a": {"file": "a", "sha256": "12"}}}, "inputs.a.sha256: expected 64 hexadecimal digits, got '12'"),
        ({"inputs": {"a": {"file": "a", "sha256": 12}}}, "inputs.a.sha256: expected 64 hexadecimal digits, got 12"),
        ({"scale": "0.5"}, "scale: expected a number in"),
        ({"scale": math.nan}, "scale: expected a number in"),
        ({"scale_origin": 1}, "scale_origin: expected a text"),
        ({"dtype": ["float32"]}, "dtype: expected a text"),
        ({"qkv": "joined"}, "qkv: expected one of stored, split, fused, got 'joined'"),
        ({"content": "all"}, "content: expected one of model, delta, adapter, got 'all'"),
        ({"task": 1}, "task: expected a text"),
        ({"arithmetic": "float16"}, "arithmetic: expected one of float32, float64"),
        ({"tolerance": 1}, r"tolerance: expected a number in \[0, 0.1\], got 1"),
        ({"zoo": 1}, "zoo: expected a text"),
        ({"versions": {"torch": 2.1}}, "versions.torch: expected a text, got 2.1"),
    ],
)
def test_a_bad_recipe_is_one_sentence_that_names_the_field(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        Recipe.of(WHOLE | change)
    assert len(str(error.value).splitlines()) == 1


def test_an_opened_recipe_names_its_file(merged: Merged, tmp_path: Path) -> None:
    merged.save(tmp_path / "out.safetensors", scale=0.5, scale_origin="by hand")
    found = Recipe.open(tmp_path / "out.safetensors")
    assert found == merged.recipe(0.5, "by hand", "float32").embedded() and found.inputs["task0"]["file"] == "task0.safetensors"
    (tmp_path / "r.yaml").write_text("method: mean")
    for path, words in (
        ("r.yaml", "r.yaml: method: expected one of"),
        ("in/base.safetensors", "base.safetensors, which holds no recipe"),
        ("none.yaml", "no file or folder .*none.yaml"),
        ("none.safetensors", "no file or folder .*none.safetensors"),
    ):
        with pytest.raises(InputError, match=words):
            Recipe.open(tmp_path / path)
    write_safetensors(tmp_path / "bad.safetensors", [], {}, {METADATA_KEY: "[1]"})
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        Recipe.open(tmp_path / "bad.safetensors")


def test_paths_are_relative_below_the_recipe_and_absolute_elsewhere(merged: Merged, tmp_path: Path) -> None:
    recipe = merged.recipe(1.0)
    assert recipe.beside(tmp_path).inputs["task0"]["file"] == "in/task0.safetensors"
    assert recipe.beside(tmp_path / "in" / "deeper").inputs["task0"]["file"] == str(tmp_path / "in" / "task0.safetensors")
    assert recipe.embedded().inputs["task0"]["file"] == "task0.safetensors"


def test_a_task_called_base_is_refused_beside_a_base(tmp_path: Path) -> None:
    vectors = full_set(tmp_path / "in", random_deltas(1), BASE)
    named = TaskVectors.open(vectors.base, {"base": tmp_path / "in" / "task0.safetensors"})
    with pytest.raises(InputError, match="task: expected another name than 'base'"):
        merge(named, "average").save(tmp_path / "out.safetensors")


def test_equal_merges_give_equal_files(merged: Merged, tmp_path: Path) -> None:
    for name in ("one", "two"):
        merged.save(tmp_path / f"{name}.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_adapters_change_only_the_adapted_weights(tmp_path: Path) -> None:
    base = random_tensors(0, {"attn.q_proj.weight": (16, 12), "mlp.fc1.weight": (20, 16), "ln.weight": (4,)})
    vectors = lora_set(tmp_path / "in", {"a": random_factors(0), "b": random_factors(1)}, base=base)
    merge(vectors, "task_arithmetic").save(tmp_path / "out.safetensors", scale=2.0)
    found = load_file(tmp_path / "out.safetensors")
    assert torch.equal(found["ln.weight"], base["ln.weight"]) and found.keys() == base.keys()
    for name in random_factors(0):
        delta = sum(B @ A for B, A in (random_factors(0)[name], random_factors(1)[name]))
        torch.testing.assert_close(found[name], base[name] + 2 * delta)


def test_adapters_without_a_base_save_their_delta(tmp_path: Path) -> None:
    result = merge(lora_set(tmp_path / "in", {"a": random_factors(0)}), "task_arithmetic")
    result.save(tmp_path / "delta.safetensors", delta_only=True)
    assert load_file(tmp_path / "delta.safetensors").keys() == random_factors(0).keys()
    assert set(recipe_in(tmp_path / "delta.safetensors")["inputs"]) == {"a"}
    with pytest.raises(InputError, match="expected a base to add the merged delta to, got none"):
        result.save(tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, 1e9, 10**400, True, "0.5", None])
def test_a_bad_scale_is_refused_before_anything_is_written(merged: Merged, tmp_path: Path, scale: object) -> None:
    with pytest.raises(InputError, match=r"scale: expected a number in \[-1000, 1000\], got "):
        merged.save(tmp_path / "out.safetensors", scale=scale)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_scales_become_floats() -> None:
    assert check_scale(1) == 1.0 and isinstance(check_scale(1), float) and check_scale(-0.5) == -0.5


class Broken(dict):
    """Deltas of which the last cannot be had."""

    def __getitem__(self, name: str) -> Tensor:
        if name == list(self)[-1]:
            raise RuntimeError("no memory left")
        return super().__getitem__(name)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, self[name]) for name in self)


@pytest.mark.parametrize("delta_only", [False, True])
def test_a_save_that_fails_leaves_nothing_behind(merged: Merged, tmp_path: Path, delta_only: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.safetensors").write_bytes(b"old")
    broken = Merged(merged.vectors, merged.method, merged.parameters, Broken(merged.deltas))
    for name in ("new.safetensors", "old.safetensors"):
        with pytest.raises(RuntimeError, match="no memory left"):
            broken.save(out / name, delta_only=delta_only)
    assert [path.name for path in out.iterdir()] == ["old.safetensors"]
    assert (out / "old.safetensors").read_bytes() == b"old"


def test_a_folder_that_is_not_there_is_one_sentence(merged: Merged, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        merged.save(tmp_path / "nowhere" / "out.safetensors")


def test_merge_says_what_is_wrong_before_it_computes(merged: Merged) -> None:
    for slug, parameters, text in (
        ("mean", {}, "method: expected one of"),
        ("ties", {"density": 2}, "density: expected a number in"),
        ("ties", {"k": 2}, "unknown parameter 'k'"),
    ):
        with pytest.raises(InputError, match=text):
            merge(merged.vectors, slug, **parameters, progress=lambda *step: pytest.fail("has begun"))


def test_double_precision_on_request(merged: Merged, tmp_path: Path) -> None:
    double = merge(merged.vectors, "dc_merge", dtype=torch.float64)
    assert all(delta.dtype == torch.float64 for delta in double.deltas.values())
    double.save(tmp_path / "out.safetensors")
    double.save(tmp_path / "delta.safetensors", delta_only=True)
    assert all(value.dtype == torch.float32 for value in load_file(tmp_path / "delta.safetensors").values())


@pytest.mark.parametrize(("slug", "delta_only"), [("average", False), ("ties", True), ("dc_merge", False), ("tsv_m", True)])
def test_merging_into_a_file_gives_the_same_file(merged: Merged, tmp_path: Path, slug: str, delta_only: bool) -> None:
    how = {"scale": 0.7, "scale_origin": "chosen", "delta_only": delta_only}
    merge(merged.vectors, slug).save(tmp_path / "held.safetensors", **how)
    merge_to_file(merged.vectors, slug, tmp_path / "streamed.safetensors", **how)
    assert (tmp_path / "held.safetensors").read_bytes() == (tmp_path / "streamed.safetensors").read_bytes()


def test_a_cancelled_merge_into_a_file_leaves_nothing_behind(merged: Merged, tmp_path: Path) -> None:
    done = []
    with pytest.raises(Cancelled):
        merge_to_file(
            merged.vectors,
            "average",
            tmp_path / "out.safetensors",
            progress=lambda *step: done.append(step),
            cancelled=lambda: len(done) >= 2,
        )
    assert len(done) == 2 and not list(tmp_path.glob("*out*"))
