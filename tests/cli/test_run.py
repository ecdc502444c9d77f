"""``run``, ``recipe`` and ``merge --recipe``: the same file again from the command line, and bad input in one line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from dcmerge import Recipe
from dcmerge.zoo import open_zoo
from tests.cli.conftest import TASKS, Run


@pytest.fixture
def saved(run: Run, models: list[str], tmp_path: Path) -> Path:
    """A merged file with its recipe beside it, in a folder of their own."""
    folder = tmp_path / "out"
    folder.mkdir()
    done = run(
        "merge",
        *models,
        "--method=ties",
        "--set=density=0.3",
        "--scale=0.123456789",
        "--scale-origin",
        "by hand",
        "--out",
        folder / "m.safetensors",
        "--recipe",
        folder / "r.yaml",
    )
    assert (done.code, done.err) == (0, "") and "r.yaml" in done.out
    return folder / "m.safetensors"


def test_the_recipe_that_merge_writes_makes_the_same_file(run: Run, saved: Path) -> None:
    recipe = Recipe.open(saved.parent / "r.yaml")
    assert (recipe.scale, recipe.scale_origin, recipe.parameters["density"]) == (0.123456789, "by hand", 0.3)
    done = run("run", saved.parent / "r.yaml")
    assert (done.code, done.err) == (0, "") and "α = 0.123457 (by hand)" in done.out
    assert (saved.parent / "r.safetensors").read_bytes() == saved.read_bytes()


@pytest.mark.slow
def test_two_workers_follow_a_recipe_to_the_same_file(run: Run, saved: Path) -> None:
    recipe, threads = saved.parent / "r.yaml", torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        files = [saved.parent / f"{n}.safetensors" for n in (1, 2)]
        found = [run("run", recipe, "--out", file, f"--workers={n}") for n, file in enumerate(files, 1)]
    finally:
        torch.set_num_threads(threads)
    assert [(one.code, one.err) for one in found] == [(0, ""), (0, "")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_workers_and_a_cluster_at_once_are_refused(run: Run, saved: Path) -> None:
    recipe = saved.parent / "r.yaml"
    run("run", recipe, "--force", "--cpus=2").assert_refused("cpus: expected --engine ray beside it, got none")
    run("run", recipe, "--force", "--engine=ray", "--workers=2").assert_refused("workers: expected --workers or --engine ray")
    run("run", recipe, "--force", "--engine=ray", "--cpus=0").assert_refused("cpus: expected more than 0")


@pytest.mark.parametrize("form", ["yml", "json"])
def test_other_forms_of_the_recipe(run: Run, models: list[str], tmp_path: Path, form: str) -> None:
    paths = ["--out", tmp_path / "m.safetensors", "--recipe", tmp_path / f"r.{form}"]
    report = run("merge", *models, "--method=average", *paths, "--json").json
    assert report["recipe"] == str(tmp_path / f"r.{form}")
    text = (tmp_path / f"r.{form}").read_text()
    assert (json.loads if form == "json" else yaml.safe_load)(text)["inputs"]["task0"]["file"] == "task0.safetensors"
    again = run("run", tmp_path / f"r.{form}", "--out", tmp_path / "again.safetensors", "--json").json
    assert again["sha256"] == report["sha256"] and again["notes"] == [] and again["tasks"] == list(TASKS)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_a_merged_file_repeats_itself_once_its_inputs_are_named(run: Run, saved: Path, tmp_path: Path) -> None:
    again = saved.parent / "again.safetensors"
    run("run", saved, "--out", again).assert_refused("base: expected the file base.safetensors", "--input NAME=PATH", "--search")
    assert run("run", saved, "--out", again, "--search", tmp_path).code == 0
    assert again.read_bytes() == saved.read_bytes()
    named = [f"--input={name}={tmp_path / name}.safetensors" for name in ("base", *TASKS)]
    assert run("run", saved, "--out", again, *named, "--force").code == 0
    assert again.read_bytes() == saved.read_bytes()


def test_the_recipe_is_printed(run: Run, saved: Path) -> None:
    for command in (("recipe", saved), ("run", saved, "--show")):
        done = run(*command)
        assert done.code == 0 and Recipe.from_text(done.out) == Recipe.open(saved)
    assert run("recipe", saved, "--json").json["method"] == "ties"


def test_mergekit_both_ways(run: Run, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    settings = ["--method=ties", "--set=density=0.3", "--set=trim=parameter", "--recipe", tmp_path / "r.yaml"]
    assert run("merge", *models, *settings, "--out", out).code == 0
    text = run("recipe", tmp_path / "r.yaml", "--mergekit").out
    assert yaml.safe_load(text)["merge_method"] == "ties" and yaml.safe_load(text)["parameters"]["lambda"] == 1.0
    (tmp_path / "mergekit.yaml").write_text(text)
    done = run("run", tmp_path / "mergekit.yaml")
    assert done.code == 0 and done.err == "note: no hash in the recipe for any input: taken as found\n"
    again, first = Recipe.open(tmp_path / "mergekit.safetensors"), Recipe.open(out)
    assert again.parameters == first.parameters and again.scale_origin == "mergekit: weight 1, lambda 1, normalize true"
    assert [one["sha256"] for one in again.inputs.values()] == [one["sha256"] for one in first.inputs.values()]
    run("recipe", tmp_path / "r.yaml", "--mergekit", "--json").assert_refused("--mergekit", "--json")
    (tmp_path / "mergekit.yaml").write_text(text.replace("merge_method: ties", "merge_method: della"))
    run("run", tmp_path / "mergekit.yaml", "--force").assert_refused("mergekit.yaml: merge_method: expected one of", "'della'")


def test_a_zoo_needs_no_paths(run: Run, tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcmerge.merging.running.open_zoo", partial(open_zoo, data=tiny_zoo))
    out = tmp_path / "m.safetensors"
    how = ["--zoo=demo", "--method=fisher", "--set=exemplars=4", "--out", out, "--recipe", tmp_path / "r.yaml"]
    assert run("merge", *how).code == 0
    assert run("run", out, "--out", tmp_path / "a.safetensors").code == 0 == run("run", tmp_path / "r.yaml").code
    assert (tmp_path / "a.safetensors").read_bytes() == out.read_bytes() == (tmp_path / "r.safetensors").read_bytes()
    assert str(tiny_zoo) not in (tmp_path / "r.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["names with values"]),
        ("method: ties", ["inputs: expected at least one expert"]),
        ("a: [", ["YAML or JSON"]),
        ("method: ties\ninputs: {a: {file: /none/a.safetensors}}", ["a: expected the file /none/a.safetensors"]),
        ("method: ties\nzoo: \x1b[31m", ["YAML or JSON"]),
        ('method: ties\nzoo: "\\e[31m"', ["zoo: expected one of demo", "x1b[31m"]),
        ('method: ties\n"\\e[31m": 1', ["unknown key", "x1b[31m"]),
        ('merge_method: ties\nmodels: [{model: "a\\e[0m"}]\nbase_model: b', ["weight", "x1b[0m"]),
    ],
)
def test_bad_recipes_are_one_line_and_write_nothing(run: Run, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "r.yaml").write_text(text)
    run("run", tmp_path / "r.yaml").assert_refused("error: ", *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.yaml"]


def test_bad_options_are_one_line(run: Run, saved: Path, models: list[str], tmp_path: Path) -> None:
    before = sorted(saved.parent.iterdir())
    run("run", saved).assert_refused("out: expected --out FILE")
    run("run", saved, "--out", saved).assert_refused("exists already")
    run("run", saved, "--out", saved.parent / "x.pt").assert_refused("ends in .safetensors")
    run("run", saved, "--out", saved.parent / "x.safetensors", "--input", "x").assert_refused("NAME=PATH")
    run("run", saved, "--out", saved.parent / "x.safetensors", "--input=z=x").assert_refused("expected one of base, task0")
    run("run", saved, "--out", saved.parent / "x.safetensors", "--input=base=x", "--input=base=y").assert_refused("twice")
    run("run", tmp_path / "base.safetensors", "--out", tmp_path / "x.safetensors").assert_refused("holds no recipe")
    run("recipe", tmp_path / "none").assert_refused("no file or folder")
    run("recipe", tmp_path).assert_refused("folder")
    run("recipe", saved, "--mergekit").assert_refused("ties: mergekit cannot express trim model")
    origin = ["--scale-origin=x", "--out", saved.parent / "x.safetensors"]
    run("merge", *models, "--method=average", *origin).assert_refused("scale-origin: expected it with --scale")
    merging = ["merge", *models, "--method=average", "--out", saved.parent / "x.safetensors", "--recipe"]
    run(*merging, saved.parent / "r.txt").assert_refused("recipe: expected a file name that ends in .yaml, .yml, .json")
    run(*merging, saved.parent / "r.yaml").assert_refused("r.yaml exists already", "--force")
    run(*merging, saved.parent / "none" / "r.yaml").assert_refused("there is no folder")
    assert sorted(saved.parent.iterdir()) == before


def test_an_input_is_never_replaced(run: Run, saved: Path, tmp_path: Path) -> None:
    target = tmp_path / "task1.safetensors"
    done = run("run", saved.parent / "r.yaml", "--out", target, "--force")
    done.assert_refused("another file or folder than those that are merged")
