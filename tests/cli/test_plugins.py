"""``--plugin``: methods of one's own on the command line, in recipes, cards and jobs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import pytest

from dcmerge import InputError, Recipe, load_plugin
from dcmerge.methods import registry
from tests.cli.conftest import Run
from tests.plugins import BAD, GOOD, UNSOUND, write_plugin

pytestmark = pytest.mark.usefixtures("own_register")


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    return write_plugin(tmp_path / "plugins")


def named(plugin: Path) -> dict[str, str]:
    """As a recipe tells it."""
    return {"name": plugin.name, "sha256": hashlib.sha256(plugin.read_bytes()).hexdigest()}


def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has loaded no plugin."""
    monkeypatch.setattr(registry, "_METHODS", {slug: one for slug, one in registry.methods().items() if not one.origin})


def test_the_catalogue_lists_it_as_foreign(run: Run, plugin: Path) -> None:
    listed = {entry["slug"]: entry for entry in run("methods", "--plugin", plugin, "--json").json["methods"]}
    assert listed["mine"]["plugin"] == named(plugin) and listed["ties"]["plugin"] is None
    assert [parameter["name"] for parameter in listed["mine"]["parameters"]] == ["factor"]
    assert f"from mine.py, sha256 {named(plugin)['sha256']}" in run("methods").out


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plugin_ends_the_command_with_one_line(run: Run, tmp_path: Path, models: list[str], name: str) -> None:
    text, words = BAD[name]
    out = tmp_path / "out.safetensors"
    bad = write_plugin(tmp_path, text, f"{name}.py")
    run("merge", *models, "--method", "average", "--plugin", bad, "--out", out).assert_refused(words)
    assert not out.exists()


def test_a_recipe_names_the_plugin_and_is_refused_without_it(
    run: Run, tmp_path: Path, models: list[str], plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, recipe, again = (tmp_path / name for name in ("out.safetensors", "recipe.yaml", "again.safetensors"))
    made = run(
        *("merge", *models, "--plugin", plugin, "--method", "mine", "--set", "factor=3", "--out", out),
        *("--recipe", recipe, "--card", "--json"),
    )
    assert made.json["plugin"] == named(plugin) and made.json["parameters"] == {"factor": 3.0}
    assert f"mine.py (SHA-256 {named(plugin)['sha256']})" in (tmp_path / "out.md").read_text()
    forgotten(monkeypatch)
    wanted = f"expected the plugin mine.py with sha256 {named(plugin)['sha256']} for the method mine, got none"
    for command in (("run", recipe, "--out", again), ("recipe", recipe), ("recipe", out), ("run", out, "--show")):
        run(*command).assert_refused(wanted)
    other = write_plugin(tmp_path / "other", GOOD + "# changed\n")
    other_sha256 = named(other)["sha256"]
    run("run", recipe, "--plugin", other, "--out", again).assert_refused(f"got mine.py with {other_sha256}")
    forgotten(monkeypatch)
    assert run("recipe", out, "--plugin", plugin, "--json").json["plugin"] == named(plugin)
    assert run("run", recipe, "--plugin", plugin, "--out", again).code == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_recipe_of_a_built_in_method_that_wants_a_plugin_is_refused() -> None:
    wanted = {"name": "mine.py", "sha256": "0" * 64}
    data = {"inputs": {"a": {"file": "a"}}, "method": "ties", "plugin": wanted}
    with pytest.raises(InputError, match="plugin: expected the plugin mine.py .* got the method that is built in"):
        Recipe.of(data)
    for bad, words in (({"name": "mine.py"}, "plugin.sha256"), ({"sha256": "0" * 64}, "plugin.name"), ("mine.py", "plugin")):
        with pytest.raises(InputError, match=words):
            Recipe.of(data | {"plugin": bad})


def test_a_recipe_by_hand_gets_the_hash_of_what_is_loaded(plugin: Path) -> None:
    load_plugin(plugin)
    recipe = Recipe.of({"inputs": {"a": {"file": "a"}}, "method": "mine"})
    assert recipe.plugin == named(plugin) and Recipe.from_text(recipe.to_yaml()) == recipe
    built_in = Recipe.of({"inputs": {"a": {"file": "a"}}, "method": "ties"})
    assert built_in.plugin is None and "plugin" not in json.loads(built_in.to_json())


def test_evaluate_and_compare_name_it(run: Run, plugin: Path, tiny_zoo: Path) -> None:
    found = run("evaluate", "--zoo", "demo", "--plugin", plugin, "--method", "mine", "--scale", "1", "--json").json
    assert found["plugins"] == {"mine": named(plugin)}
    done = run("compare", "--zoo", "demo", "--methods", "mine,ties", "--csv", "-")
    told = {row["slug"]: row["plugin"] for row in csv.DictReader(io.StringIO(done.out))}
    assert told == dict.fromkeys(("zero-shot", "average", "ties", "experts"), "") | {"mine": f"mine.py {named(plugin)['sha256']}"}
    text = run("compare", "--zoo", "demo", "--methods", "mine").out
    assert "Method mine: from mine.py, sha256" in text


def test_a_sound_method_keeps_its_promises(run: Run, plugin: Path) -> None:
    done = run("methods", "--plugin", plugin, "--check", "mine")
    assert done.code == 0 and "mine keeps 19 of 19 promises and breaks none" in done.out
    assert f"mine: from mine.py, sha256 {named(plugin)['sha256']}" in done.out
    assert "holds  scaled deltas" in done.out and "Twice the deltas give twice the merge." in done.out


def test_every_violation_is_told(run: Run, tmp_path: Path) -> None:
    done = run("methods", "--plugin", write_plugin(tmp_path, UNSOUND), "--check", "unsound", "--json")
    told = {one["name"]: one for one in done.json["invariants"]}
    assert done.code == 1 and not done.json["sound"] and done.json["plugins"].keys() == {"unsound"}
    broken = {name for name, one in told.items() if one["outcome"] == "violated"}
    assert broken == {"permuted tasks", "permuted adapters", "zero deltas", "scaled deltas", "same again"}
    assert "dc_merge merges another value after it: what is shared was changed in place" in told["same again"]["text"]
    text = run("methods", "--check", "unsound")
    assert text.code == 1 and "violated: scaled deltas: " in text.out and "and breaks 5" in text.out


def test_what_a_method_declares_is_not_held_against_it(run: Run, tmp_path: Path) -> None:
    declared = UNSOUND.replace("**ABOUT", "homogeneous=False, order_matters=True, **ABOUT").replace(".mul_(2)", "")
    told = run("methods", "--plugin", write_plugin(tmp_path, declared), "--check", "unsound", "--json").json["invariants"]
    assert {one["name"] for one in told if one["outcome"] == "violated"} == {"zero deltas"}
    assert {one["text"] for one in told if one["name"] == "permuted tasks"} == {"it declares that the order matters"}


def test_an_unknown_method_is_not_checked(run: Run) -> None:
    run("methods", "--check", "mine").assert_refused("method: expected one of average", "got 'mine'")
