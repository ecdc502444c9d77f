"""The texts to copy are run as they stand, by a shell and by Python, and write the same file as the recipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dcmerge import InputError, Recipe, TaskVectors, load_plugin, merge
from dcmerge.merging import snippets
from dcmerge.merging.recipe import GIVEN, USUAL, inputs_of
from dcmerge.merging.running import prepare, read_source
from tests.builders import full_set, lora_set, random_deltas, random_factors, random_tensors
from tests.plugins import write_plugin

REPOSITORY = Path(__file__).resolve().parents[2]


def run(folder: Path, *arguments: str) -> None:
    """One process in that folder, in which ``python`` is this Python and dcmerge this package."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PATH": path}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def files_of(recipe: Recipe, folder: Path) -> list[bytes]:
    """What the command, the script and the recipe write."""
    run(folder, "sh", "-c", snippets.command(recipe, "command.safetensors"))
    (folder / "script.py").write_text(snippets.python(recipe, "python.safetensors"), encoding="utf-8")
    run(folder, sys.executable, "script.py")
    (folder / "recipe.yaml").write_text(recipe.beside(folder).to_yaml(), encoding="utf-8")
    prepare(read_source(folder / "recipe.yaml")).run(folder / "recipe.safetensors")
    return [(folder / f"{name}.safetensors").read_bytes() for name in ("command", "python", "recipe")]


def recipe_for(vectors: TaskVectors, slug: str, **more: Any) -> Recipe:
    return Recipe.of({"inputs": inputs_of(vectors), "method": slug, **more})


def test_a_full_set_with_names_that_a_shell_would_break(tmp_path: Path) -> None:
    folder = tmp_path / "it's $HOME; *"
    folder.mkdir()
    base = full_set(folder, random_deltas(2), random_tensors(0)).base
    vectors = TaskVectors.open(base, {"a b'c": folder / "task0.safetensors", "-x": folder / "task1.safetensors"})
    recipe = recipe_for(
        vectors,
        "ties",
        parameters={"density": 1 / 3, "aggregate": "sum"},
        scale=-0.1234567890123,
        scale_origin='found on `validation`, 5% "better"',
    )
    command, script, repeated = files_of(recipe, folder)
    assert command == script == repeated
    merge(vectors, "ties", density=1 / 3, aggregate="sum").save(
        folder / "held.safetensors", scale=-0.1234567890123, scale_origin=recipe.scale_origin
    )
    assert (folder / "held.safetensors").read_bytes() == command


def test_the_delta_of_adapters(tmp_path: Path) -> None:
    adapters = lora_set(tmp_path / "lora", {"a": random_factors(0), "b": random_factors(1)})
    scale = 2.0  # the usual one for two adapters: the command names it, for another set has another
    recipe = recipe_for(adapters, "dc_merge", content="delta", tolerance=1e-3, parameters={"rank": 2}, scale=scale)
    assert len(set(files_of(recipe, tmp_path))) == 1


def test_one_task_of_many(tmp_path: Path) -> None:
    recipe = recipe_for(full_set(tmp_path, random_deltas(2)), "emr", task="task1", scale=1.0, scale_origin=GIVEN)
    assert len(set(files_of(recipe, tmp_path))) == 1


def test_a_zoo_is_named_and_not_its_files(tmp_path: Path) -> None:
    recipe = Recipe.of({"zoo": "demo", "method": "lot", "parameters": {"exemplars": 4}})
    assert "--zoo demo" in snippets.command(recipe) and "--expert" not in snippets.command(recipe)
    text = snippets.python(recipe)
    assert "open_zoo('demo')" in text and "bench=zoo.bench" in text and "exemplars=4" in text
    assert "bench" not in snippets.python(Recipe.of({"zoo": "demo", "method": "average"}))


def test_what_is_usual_is_not_said(tmp_path: Path) -> None:
    recipe = recipe_for(full_set(tmp_path, random_deltas(1)), "ties")
    assert recipe.scale_origin == USUAL
    assert "--scale" not in snippets.command(recipe) and "--set" not in snippets.command(recipe)


@pytest.mark.parametrize("name", ["a=b", " a", "a "])
def test_a_name_that_no_option_holds_is_refused(name: str) -> None:
    recipe = Recipe({name: {"file": "x"}}, "average", {}, 1.0, GIVEN)
    with pytest.raises(InputError, match="task: the command takes names without"):
        snippets.command(recipe)
    assert name in snippets.python(recipe)


def test_double_precision_is_python_only(tmp_path: Path) -> None:
    vectors = full_set(tmp_path, random_deltas(2))
    recipe = recipe_for(vectors, "iso_c", arithmetic="float64")
    with pytest.raises(InputError, match="arithmetic"):
        snippets.command(recipe)
    (tmp_path / "script.py").write_text(snippets.python(recipe))
    run(tmp_path, sys.executable, "script.py")
    prepare(read_source(_saved(recipe, tmp_path))).run(tmp_path / "recipe.safetensors")
    assert (tmp_path / "merged.safetensors").read_bytes() == (tmp_path / "recipe.safetensors").read_bytes()


def _saved(recipe: Recipe, folder: Path) -> Path:
    path = folder / "recipe.json"
    path.write_text(recipe.beside(folder).text_for(path))
    return path


@pytest.mark.usefixtures("own_register")
def test_a_method_from_a_file_is_loaded_by_both_texts(tmp_path: Path) -> None:
    path = write_plugin(tmp_path / "it's mine")
    load_plugin(path)
    recipe = recipe_for(full_set(tmp_path, random_deltas(2)), "mine", parameters={"factor": 0.5})
    assert f"dcmerge.load_plugin({str(path)!r})" in snippets.python(recipe)
    command, script, repeated = files_of(recipe, tmp_path)
    assert command == script == repeated
