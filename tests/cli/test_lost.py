"""Lost images from the command line, on a zoo of two tiny tasks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dcmerge.runs import RunStore
from tests.cli.conftest import Run
from tests.own_models import own_models


@pytest.fixture(autouse=True)
def folder(tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "jobs"))
    return tmp_path


def test_every_image_has_a_row(run: Run, folder: Path) -> None:
    options = ("lost", "--zoo=demo", "--method=average", "--scale=1", "--csv", folder / "images.csv")
    found = run(*options, "--json").json
    assert found["scale"]["value"] == 1 and [row["images"] for row in found["tasks"]] == [12, 12]
    with open(folder / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in found["tasks"]:
        own = [one for one in rows if one["task"] == row["task"]]
        assert len(own) == 12 and sum(one["fate"] == "lost" for one in own) == row["lost"]
    text = run(*options).out
    assert "average on the zoo demo, α = 1 (given)." in text and "Lost by most" in text and "both wrong" in text


def test_one_task_is_merged_as_all_are(run: Run) -> None:
    options = ("lost", "--zoo=demo", "--method=ties", "--split=test", "--limit=9", "--json")
    whole, one = run(*options).json, run(*options, "--task=task1").json
    assert whole["scale"] == one["scale"] and [whole["tasks"][1]] == one["tasks"]


def test_two_runs_are_compared_image_by_image(run: Run, folder: Path) -> None:
    for slug in ("average", "ties"):
        assert run("evaluate", "--zoo=demo", f"--method={slug}", "--scale=1").code == 0
    ids = [next(one for one in RunStore().find(method=slug)).id for slug in ("average", "ties")]
    plain = run("lost", "--runs", *ids, "--json").json
    named = run("lost", "--runs", *ids, "--zoo=demo", "--csv", folder / "apart.csv", "--json").json
    assert plain["tasks"] == named["tasks"] and len(plain["images"]) == len(named["images"])
    assert all(row["true"] in "abc" for row in named["images"])
    a, b = (RunStore().get(id) for id in ids)
    assert plain["difference"]["value"] == pytest.approx(b.evaluation.mean - a.evaluation.mean)
    assert "only first right" in run("lost", "--runs", *ids).out


def test_images_of_own_sets_are_named_by_their_files(run: Run, tmp_path: Path) -> None:
    options = own_models(tmp_path)
    files = [f"--csv={tmp_path / name}.csv" for name in ("merge", "runs")]
    found = run("lost", *options, "--method=average", "--scale=1", "--split=test", files[0], "--json").json
    assert sum(row["lost"] for row in found["tasks"]) > 0
    with open(tmp_path / "merge.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert Path(row["file"]).is_file() and Path(row["file"]).parent.name == row["true"]
    for scale in ("0.2", "1"):
        assert run("evaluate", *options, "--method=average", f"--scale={scale}").code == 0
    ids = [run.id for run in RunStore().find(method="average")]
    apart = run("lost", "--runs", *ids, *options, files[1], "--json").json
    assert apart["images"] and all(Path(row["file"]).parent.name == row["true"] for row in apart["images"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--zoo=demo",), "expected one of --method, --checkpoint and --runs, got none"),
        (("--zoo=demo", "--method=ties", "--checkpoint=x"), "got method and checkpoint"),
        (("--zoo=demo", "--method=ties", "--task=cats"), "task: expected one of task0, task1"),
        (("--zoo=demo", "--checkpoint=x", "--scale=1"), "together with --method"),
        (("--runs", "a", "b"), "no id begins"),
        (("--method=ties",), "expected --zoo NAME"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(run: Run, options: tuple[str, ...], words: str) -> None:
    run("lost", *options).assert_refused(words)
