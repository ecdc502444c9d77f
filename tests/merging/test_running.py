"""A recipe is run: the same file, byte for byte, wherever the inputs are found; anything that differs is said or refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dcmerge import InputError, Recipe, TaskVectors, merge, methods
from dcmerge.merging.recipe import inputs_of
from dcmerge.merging.running import prepare, read_source
from tests.builders import full_set, lora_set, random_deltas, random_factors, random_tensors

WEIGHTS = [slug for slug, one in methods().items() if set(one.needs) <= {"weights", "base"} and one.experts is None]


@pytest.fixture
def vectors(tmp_path: Path) -> TaskVectors:
    return full_set(tmp_path / "in", random_deltas(2), random_tensors(0))


@pytest.fixture
def saved(vectors: TaskVectors, tmp_path: Path) -> Path:
    """A merged file, with its recipe beside it."""
    merge(vectors, "dc_merge", smoothing="linear").save(tmp_path / "m.safetensors", scale=0.7, scale_origin="by hand")
    recipe = replace(Recipe.open(tmp_path / "m.safetensors"), inputs=inputs_of(vectors)).beside(tmp_path)
    (tmp_path / "m.yaml").write_text(recipe.to_yaml())
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize("slug", WEIGHTS)
def test_every_method_is_repeated_byte_for_byte(vectors: TaskVectors, tmp_path: Path, slug: str) -> None:
    task = "task1" if methods()[slug].modules else None
    merge(vectors, slug).save(tmp_path / "m.safetensors", scale=1.0, task=task)
    ready = prepare(read_source(tmp_path / "m.safetensors"), search=[str(tmp_path / "in")])
    ready.run(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes() and ready.notes == ()


def test_relative_paths_start_at_the_recipe(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tmp_path / "in", tmp_path / "moved" / "in")
    shutil.move(tmp_path / "m.yaml", tmp_path / "moved")
    shutil.rmtree(tmp_path / "in")
    monkeypatch.chdir("/")
    ready = prepare(read_source(tmp_path / "moved" / "m.yaml"))
    ready.run(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_inputs_are_found_by_name_or_by_hash_under_any_name(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "deep"
    other.mkdir(parents=True)
    for number, file in enumerate(sorted((tmp_path / "in").iterdir())):
        shutil.move(file, other / f"{number}.safetensors")
    (other / "broken.safetensors").write_bytes(b"not one")
    ways = {
        "searched": ({}, [str(tmp_path / "elsewhere")]),
        "both": ({"base": str(other / "0.safetensors")}, [str(other)]),
        "given": (
            {"base": str(other / "0.safetensors"), "task0": str(other / "1.safetensors"), "task1": str(other / "2.safetensors")},
            [],
        ),
    }
    for name, (given, search) in ways.items():
        prepare(read_source(saved), given, search).run(tmp_path / f"{name}.safetensors")
        assert (tmp_path / f"{name}.safetensors").read_bytes() == saved.read_bytes()


def test_the_order_of_the_tasks_is_kept(vectors: TaskVectors, tmp_path: Path) -> None:
    turned = vectors.select(("task1", "task0"))
    merge(turned, "slerp", position=0.2).save(tmp_path / "m.safetensors")
    ready = prepare(read_source(tmp_path / "m.safetensors"), search=[str(tmp_path / "in")])
    assert ready.vectors.tasks == ("task1", "task0")
    ready.run(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_double_precision_tolerance_and_the_delta_of_adapters(tmp_path: Path) -> None:
    vectors = lora_set(tmp_path / "in", {"a": random_factors(0), "b": random_factors(1)})
    vectors.tolerance = 1e-3
    merge(vectors, "tsv_m", dtype=torch.float64).save(tmp_path / "m.safetensors", delta_only=True)
    recipe = Recipe.open(tmp_path / "m.safetensors")
    assert (recipe.content, recipe.arithmetic, recipe.tolerance) == ("delta", "float64", 1e-3)
    prepare(read_source(tmp_path / "m.safetensors"), search=[str(tmp_path)]).run(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_a_zoo_and_some_of_its_tasks_by_name(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("zoo: demo\nmethod: task_arithmetic\nscale: 2e-1\n")
    ready = prepare(read_source(tmp_path / "r.yaml"))
    assert ready.recipe.scale == 0.2 and len(ready.vectors.tasks) == 8 and ready.bench is not None
    some = replace(ready.recipe, inputs=inputs_of(ready.vectors.select(("kana", "mnist"))))
    (tmp_path / "some.yaml").write_text(some.to_yaml())
    two = prepare(read_source(tmp_path / "some.yaml"))
    assert two.vectors.tasks == ("kana", "mnist") == tuple(two.bench.tasks)
    two.run(tmp_path / "m.safetensors")
    prepare(read_source(tmp_path / "m.safetensors")).run(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_methods_with_images_run_on_a_zoo_and_are_refused_without(vectors: TaskVectors, tmp_path: Path) -> None:
    recipe = Recipe.of({"inputs": inputs_of(vectors), "method": "regmean"})
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    with pytest.raises(InputError, match="regmean needs unlabeled images of the tasks, got a set without images"):
        prepare(read_source(tmp_path / "r.yaml")).run(tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def _missing(folder: Path) -> None:
    (folder / "in" / "base.safetensors").unlink()


def _damaged(folder: Path) -> None:
    (folder / "in" / "base.safetensors").write_bytes(b"x" * 99)


def _other_content(folder: Path) -> None:
    tensors = load_file(folder / "in" / "task1.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, folder / "in" / "task1.safetensors")


def _edited(old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / "m.yaml").read_text()
        assert old in text
        (folder / "m.yaml").write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_other_content, "task1: expected the content with sha256 [0-9a-f]{64}, got .*in/task1.safetensors with [0-9a-f]{64}"),
        (_missing, "base: expected the file in/base.safetensors in .*found none"),
        (_damaged, "in/base.safetensors"),
        (_edited("qkv: stored", "qkv: fused"), "qkv: expected attention's q, k and v, to be merged fused, got files without"),
        (_edited("dtype: float32", "dtype: float17"), "dtype: expected float32, in which this merge is written, got float17"),
        (_edited("method: dc_merge", "zoo: none\nmethod: dc_merge"), "zoo: expected one of demo"),
        (_edited("in/base.safetensors", "in/" + "x" * 5000), "base: expected the file in/xxx"),
        (_edited("method: dc_merge", "method: [dc_merge"), "m.yaml: expected YAML or JSON"),
    ],
    ids=["other content", "missing", "damaged", "qkv", "dtype", "zoo", "long name", "broken"],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    saved: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        prepare(read_source(tmp_path / "m.yaml"))


def test_bad_places_are_refused(saved: Path, tmp_path: Path) -> None:
    source = read_source(saved)
    for given, search, words in (
        ({"task7": "x"}, [], "input: expected one of base, task0, task1, got task7"),
        ({"task0": str(tmp_path / "none")}, [], "no file or folder"),
        ({}, [str(tmp_path / "none")], "search: expected an existing folder"),
        ({}, ["a\0b"], "search: expected an existing folder"),
    ):
        with pytest.raises(InputError, match=words):
            prepare(source, given, search)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="base: expected the file base.safetensors in the folders that were searched"):
        prepare(source, {}, [str(tmp_path / "empty")])


def test_other_versions_and_missing_hashes_are_said(saved: Path, tmp_path: Path) -> None:
    _edited(f"torch: {torch.__version__}", "torch: 1.0.0")(tmp_path)
    digest = Recipe.open(tmp_path / "m.yaml").inputs["task0"]["sha256"]
    _edited(f"    sha256: {digest}\n", "")(tmp_path)
    ready = prepare(read_source(tmp_path / "m.yaml"))
    assert ready.notes[0].startswith(f"made with torch 1.0.0 (here {torch.__version__})")
    assert ready.notes[1] == "no hash in the recipe for task0: taken as found"
    ready.run(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()
