"""Models by their names on the hub, through the command line: from a filled cache, and fetched by ``--download``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save

from dcmerge.merging.recipe import Recipe
from tests.builders import random_deltas, random_tensors
from tests.cli.conftest import Run
from tests.hub import COMMIT, Hub, fill_cache, serving

BASE = random_tensors(99, scale=3.0)
MODELS = {
    "me/base": {"model.safetensors": save(BASE), "config.json": b"{}"},
    **{
        f"me/{task}": {"model.safetensors": save({name: value + BASE[name] for name, value in own.items()}), "config.json": b"{}"}
        for task, own in random_deltas(2).items()
    },
}
NAMED = ["--base", "hub:me/base", "--expert", "a=hub:me/task0", "--expert", f"b=hub:me/task1@{COMMIT}"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for repository, files in MODELS.items():
        fill_cache(tmp_path / "cache", repository, files)
    return tmp_path / "cache"


def test_from_the_cache_into_recipe_and_card(run: Run, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("merge", *NAMED, "--method", "average", "--out", out, "--recipe", tmp_path / "recipe.yaml").code == 0
    expected = {"base": "base", "a": "task0", "b": "task1"}
    for recipe in (Recipe.open(out / "model.safetensors"), Recipe.open(tmp_path / "recipe.yaml")):
        files = {name: one["file"] for name, one in recipe.inputs.items()}
        assert files == {name: f"hub:me/{model}@{COMMIT}" for name, model in expected.items()}
    card = (out / "README.md").read_text()
    assert 'base_model: "me/base"' in card and COMMIT in card
    assert run("run", tmp_path / "recipe.yaml", "--out", tmp_path / "again").code == 0
    again, first = (load_file(folder / "model.safetensors") for folder in (tmp_path / "again", out))
    assert all(again[name].equal(value) for name, value in first.items())
    verified = run("verify", out, "--json", "--no-loading")
    assert verified.code == 0 and any(check["what"] == "recipe" and check["ok"] for check in verified.json["checks"])


def test_a_repository_with_a_whole_set(run: Run, cache: Path) -> None:
    fill_cache(
        cache,
        "me/set",
        {f"{repository.split('/')[1]}/{name}": data for repository, files in MODELS.items() for name, data in files.items()},
    )
    found = run("inspect", "hub:me/set", "--json")
    assert found.code == 0 and set(found.json["report"]["experts"]) == {"task0", "task1"}
    assert run("spectra", "--from", "hub:me/set", "--json").code == 0


def test_what_is_not_there_is_told_with_the_way_out(run: Run, cache: Path) -> None:
    run("inspect", "--base", "hub:me/base", "--expert", "a=hub:me/dogs").assert_refused(
        "hub:me/dogs@main", "Allow it with --download."
    )
    run("inspect", "--from", "hub:nobody").assert_refused("expected hub:owner/name")


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    options = {"capture_output": True, "text": True, "env": known | environment, "check": False}
    return subprocess.run([sys.executable, "-m", "dcmerge", *map(str, arguments)], **options)


@pytest.mark.slow
def test_fetched_once_then_off_the_net(tmp_path: Path) -> None:
    """In processes of their own, which read HF_ENDPOINT and HF_HUB_OFFLINE as every user's do."""
    here = {"HF_HUB_CACHE": str(tmp_path / "cache")}
    with serving(Hub({name: dict(files) for name, files in MODELS.items()})) as hub:
        first = command("inspect", *NAMED, "--download", "--json", HF_ENDPOINT=hub.url, **here)
    assert first.returncode == 0, first.stderr
    assert sorted(hub.asked) == sorted(f"{name}/{file}" for name, files in MODELS.items() for file in files)
    again = command("inspect", *NAMED, "--json", HF_HUB_OFFLINE="1", **here)
    assert again.returncode == 0 and json.loads(again.stdout)["mergeable"] is True, again.stderr
