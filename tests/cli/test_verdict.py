"""``inspect --verdict``: what it says, what it exits with, what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from tests.builders import full_set, random_tensors
from tests.cli.conftest import Run


def set_of(folder: Path, second: float) -> Path:
    """Two experts, of which the second is that many times the first, and a third one of its own."""
    a, c = random_tensors(1), random_tensors(2)
    full_set(folder, {"a": a, "b": {name: second * value for name, value in a.items()}, "c": c}, random_tensors(3, scale=3.0))
    return folder


def test_a_pair_in_trouble_has_its_own_exit_code(run: Run, tmp_path: Path) -> None:
    place = set_of(tmp_path / "set", -1.0)
    done = run("inspect", place, "--verdict", "--csv", tmp_path / "pairs.csv")
    assert done.code == 3 and not done.err
    for words in ("Will it merge?", "In conflict: a and b (cosine -1.000).", "a, b  in conflict", "By blocks"):
        assert words in done.out
    with open(tmp_path / "pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["word"] for row in rows if {row["first"], row["second"]} == {"a", "b"}} == {"in conflict"}


def test_json_holds_the_verdict(run: Run, tmp_path: Path) -> None:
    done = run("inspect", set_of(tmp_path / "set", 1.0), "--verdict", "--by=matrices", "--json")
    assert done.code == 3
    found = done.json["report"]["verdict"]
    assert found["words"] == {"duplicate": 1, "independent": 2} and found["parts"]["by"] == "matrices"


def test_a_set_that_is_fine_ends_with_0(run: Run, tmp_path: Path) -> None:
    full_set(tmp_path, {f"t{seed}": random_tensors(seed) for seed in (1, 2)}, random_tensors(3, scale=3.0))
    options = [f"--base={tmp_path}/base.safetensors", *(f"--expert={t}={tmp_path}/{t}.safetensors" for t in ("t1", "t2"))]
    done = run("inspect", *options, "--verdict")
    assert done.code == 0 and "2 experts make 1 pair: 1 independent." in done.out


def test_adapters_and_the_zoo_have_verdicts_too(run: Run, adapters: list[str], tiny_zoo: Path) -> None:
    assert "Will it merge?" in run("inspect", *adapters, "--verdict").out
    assert run("inspect", "--zoo=demo", "--verdict", "--json").json["verdict"]["pairs"]


def test_without_being_asked_nothing_is_judged(run: Run, tmp_path: Path) -> None:
    done = run("inspect", set_of(tmp_path / "set", -1.0))
    assert done.code == 0 and "Will it merge?" not in done.out


def test_what_cannot_be_judged_is_one_line(run: Run, tmp_path: Path) -> None:
    full_set(tmp_path, {"a": {"w": torch.ones(4, 4)}}, {"w": torch.ones(4, 4)})
    one = (f"--base={tmp_path}/base.safetensors", f"--expert=a={tmp_path}/a.safetensors")
    run("inspect", *one, "--verdict").assert_refused("at least two experts")
    run("inspect", *one, "--csv=x.csv").assert_refused("csv: expected --verdict with it")
    run("inspect", *one, "--verdict", f"--csv={tmp_path}/no/x.csv").assert_refused("no")


@pytest.mark.parametrize("command", [("--verdict",), ("--verdict", "--json")])
def test_of_several_sets_one_must_be_named(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    for name in ("one", "two"):
        set_of(tmp_path / "both" / name, 1.0)
    done = run("inspect", tmp_path / "both", *command)
    assert done.code == 2 and "verdict: expected one set, got 2 in this folder" in done.err
