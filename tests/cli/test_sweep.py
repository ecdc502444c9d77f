"""Sweeps from the command line, on a zoo of two tiny tasks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dcmerge import Recipe
from dcmerge.runs import POINT, RunStore
from tests.cli.conftest import Run

SWEEP = ("sweep", "--zoo=demo", "--method=ties", "--over=density=0.2:0.8:3")


@pytest.fixture(autouse=True)
def folder(tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "jobs"))
    return tmp_path


def test_a_sweep_tells_its_points_and_keeps_them(run: Run, folder: Path) -> None:
    found = run(*SWEEP, "--json").json
    assert [point["density"] for point in sorted(found["points"], key=lambda row: row["point"])] == ["0.2", "0.5", "0.8"]
    assert found["best"]["tried"] == "best of 3 on 12 validation images a task"
    assert found["test"][0]["row"]["evaluation"]["split"] == "test"
    assert Path(found["study"]).is_relative_to(folder / "jobs" / "sweeps")
    assert len(RunStore().find(kind=POINT)) == 3
    again = run(*SWEEP, "--json").json
    assert again == found


def test_the_recipe_tells_what_was_tried_and_makes_the_model(run: Run, folder: Path) -> None:
    done = run(*SWEEP, "--recipe", folder / "best.yaml", "--csv", folder / "points.csv", "--no-test")
    assert (done.code, done.err) == (0, "")
    for words in ("TIES-Merging on the zoo demo: grid over density from 0.2 to 0.8.", "Best: density", "chosen", "Optuna"):
        assert words in done.out
    recipe = Recipe.open(folder / "best.yaml")
    assert recipe.scale_origin is not None and recipe.scale_origin.startswith("best of 3 on 12 validation images a task (grid")
    with open(folder / "points.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert run(*SWEEP, "--recipe", folder / "best.yaml").code == 2  # it is there already


def test_two_objectives_give_a_front(run: Run) -> None:
    found = run(*SWEEP, "--objective=mean,cost", "--sampler=random", "--trials=4", "--no-test", "--json").json
    assert len(found["points"]) == 4 and found["front"] and found["best"]["point"] in found["front"]
    assert set(found["best"]["values"]) == {"mean", "cost"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--over=speed",), ("over", "density", "speed")),
        (("--over=density=2:3",), ("density", "[0, 1]")),
        (("--over=density", "--objective=beauty"), ("objective", "mean, worst, cost")),
        (("--set=density=0.5", "--over=density"), ("density", "set as well")),
        (("--over=density", "--over=scale", "--scale=1"), ("no fixed α",)),
        ((), ("over", "at least one")),
    ],
)
def test_bad_sweeps_are_refused_in_one_line(run: Run, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    run("sweep", "--zoo=demo", "--method=ties", *options).assert_refused(*words)


def test_a_file_that_is_no_study_is_named(run: Run) -> None:
    path = Path(run(*SWEEP, "--json", "--no-test").json["study"])
    path.write_text("no database, " * 100)
    run(*SWEEP).assert_refused("Optuna study", str(path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cpus=2"], ["cpus", "expected --engine ray beside it, got none"]),
        (["--address=auto"], ["address", "expected --engine ray beside it"]),
        (["--engine=ray", "--background"], ["expected --engine ray without --background"]),
        (["--engine=ray", "--cpus=0"], ["cpus", "expected more than 0"]),
        (["--engine=dask"], ["invalid choice", "dask"]),
    ],
)
def test_engines_that_make_no_sense_are_refused(run: Run, options: list[str], words: list[str]) -> None:
    run("sweep", "--zoo=demo", "--method=ties", "--over=density", *options).assert_refused(*words)
