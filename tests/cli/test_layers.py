"""The table of all matrices from the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dcmerge import jobs
from dcmerge.evaluation import Scale
from dcmerge.jobs.damaging import make_map
from dcmerge.jobs.queue import RUNNER_LOCK
from dcmerge.runtime.locks import locked
from dcmerge.sets.model_sets import ModelSet
from dcmerge.zoo import open_zoo
from tests.cli.conftest import Run


def test_the_experts_alone(run: Run, models: list[str], tmp_path: Path) -> None:
    found = run("layers", *models, "--csv", tmp_path / "cells.csv", "--json").json
    assert all(row["norm"] > 0 and "DirSim" not in row for row in found["matrices"])
    with open(tmp_path / "cells.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(found["tasks"]) == 3 * len(found["matrices"])


def test_a_merge_and_the_difference_of_two(run: Run, models: list[str]) -> None:
    tables = {}
    for slug in ("dc_merge", "average"):
        tables[slug] = run("layers", *models, f"--method={slug}", "--json").json["matrices"]
    minus = run("layers", *models, "--method=dc_merge", "--minus=average", "--json").json["matrices"]
    for first, second, row in zip(tables["dc_merge"], tables["average"], minus, strict=True):
        assert row["DirSim"] == pytest.approx(first["DirSim"] - second["DirSim"]) and row["norm"] == first["norm"]
    text = run("layers", *models, "--method=dc_merge", "--minus=average", "--sort=norm", "--match=mlp").out
    assert "dc_merge minus average" in text and "DirSim are the difference" in text and "attention" not in text


def test_two_matrices_of_a_merge(run: Run, models: list[str], tmp_path: Path) -> None:
    merged = ("layers", *models, "--method=average")
    whole = {row["matrix"]: row for row in run(*merged, "--json").json["matrices"]}
    first, second = list(whole)[1], list(whole)[2]
    options = (f"--layer={first}", f"--minus-layer={second}")
    found = run(*merged, *options, "--csv", tmp_path / "two.csv", "--json").json
    assert (found["first"], found["second"]) == (first, second)
    for row in found["rows"]:
        assert (row["first"], row["second"]) == (whole[first][row["column"]], whole[second][row["column"]])
    norm = next(row for row in found["rows"] if row["column"] == "norm")
    assert norm["difference"] == pytest.approx(norm["first"] - norm["second"])
    assert sum(norm["tasks"].values()) / 3 == pytest.approx(norm["difference"])
    with open(tmp_path / "two.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * len(found["rows"])
    text = run(*merged, *options).out
    assert f"{first} and {second}: average on" in text and "difference, task by task" in text


def test_drift_and_damage(run: Run, tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "jobs"))
    (tmp_path / "jobs").mkdir()
    zoo = open_zoo("demo", data=tiny_zoo)
    with locked(tmp_path / "jobs" / RUNNER_LOCK):
        plan = {"slug": "average", "changes": ["expert"], "by": "matrices", "limit": 4}
        job = jobs.submit({"kind": "damage", "set": "demo", "plan": plan, "scale": 1.0})
        job.finish_step("scale", Scale(1.0, "given"))
        models = ModelSet("demo", "Demo", zoo.vectors, zoo.bench)
        assert isinstance(job.specification, jobs.Damage)
        make_map(job, job.specification, models, Scale(1.0, "given"), lambda share, text: None)
        found = run("layers", "--zoo=demo", "--method=average", "--drift", f"--damage={job.id}", "--json").json["matrices"]
        run("layers", "--zoo=demo", "--method=ties", f"--damage={job.id}").assert_refused("a damage map of ties")
    assert any(row["drift"] is not None for row in found) and any(row["damage"] is not None for row in found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--minus=average",), "expected --method SLUG with --minus"),
        (("--method=ties", "--minus=average", "--damage=x"), "expected --minus or --damage"),
        (("--method=ties", "--drift"), "drift: expected images"),
        (("--sort=drift",), "sort: expected one of norm"),
        (("--layer=proj",), "expected --layer NAME and --minus-layer NAME"),
        (("--layer=proj", "--minus-layer=mlp", "--match=x"), "expected --layer without --match and --sort"),
        (("--layer=nowhere", "--minus-layer=mlp"), "layer: expected the name of one matrix, got 'nowhere', which fits none"),
    ],
)
def test_what_cannot_be_shown_is_one_line(run: Run, models: list[str], options: tuple[str, ...], words: str) -> None:
    run("layers", *models, *options).assert_refused(words)
