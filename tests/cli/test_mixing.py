"""``--weights`` and ``--depth``: a weight for every expert, and profiles over depth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.conftest import Run


def test_a_merge_takes_weights_and_its_recipe_repeats_them(run: Run, models: list[str], tmp_path: Path) -> None:
    out, recipe, again = (tmp_path / name for name in ("out.safetensors", "recipe.yaml", "again.safetensors"))
    report = run(
        *("merge", *models, "--method=task_arithmetic", "--scale=1", "--weights=task0=1.5,task1=0", f"--out={out}"),
        *(f"--recipe={recipe}", "--json"),
    ).json
    assert report["mix"] == {"weights": {"task0": 1.5, "task1": 0.0}}
    found, base = load_file(out), load_file(tmp_path / "base.safetensors")
    experts = [load_file(tmp_path / f"task{t}.safetensors") for t in range(3)]
    name = "visual.mlp.c_fc.weight"
    wanted = base[name] + 1.5 * (experts[0][name] - base[name]) + (experts[2][name] - base[name])
    torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-5)
    assert run("run", recipe, f"--out={again}").code == 0
    assert again.read_bytes() == out.read_bytes()
    text = run(
        "merge", *models, "--method=average", "--weights=task0=2", "--depth=task1=constant:0.5", f"--out={tmp_path}/b.safetensors"
    )
    assert "weights task0 2; task1 over depth constant:0.5" in text.out


def test_a_merge_without_weights_says_nothing_of_them(run: Run, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    run("merge", *models, "--method=average", f"--out={out}")
    assert "mix" not in run("recipe", out, "--json").json and "mix" not in run("recipe", out).out


def test_accuracies_follow_the_weights(run: Run, tiny_zoo: Path) -> None:
    options = ("--zoo=demo", "--method=task_arithmetic", "--scale=1", "--json")
    alone = run("evaluate", *options, "--weights=task0=0", "--depth=linear:1:1").json["rows"]
    assert alone[1]["mix"] == {"weights": {"task0": 0.0}}
    merged, expert = (row["accuracy"]["tasks"]["task1"]["accuracy"] for row in alone[1:])
    assert merged == expert, "what is left is task1's expert"
    text = run("evaluate", "--zoo=demo", "--method=average", "--depth=linear:0.5:1.5").out
    assert "α over depth linear:0.5:1.5" in text
    compared = run("compare", "--zoo=demo", "--methods=ties", "--weights=task0=0.5", "--json").json["rows"]
    assert [row["mix"] for row in compared if not row["reference"]] == [{"weights": {"task0": 0.5}}] * 2
    assert "In every merge: weights task0 0.5." in run("compare", "--zoo=demo", "--methods=ties", "--weights=task0=0.5").out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weights=lions=1"], ["weights", "task0", "lions"]),
        (["--weights=task0=nan"], ["task0", "number", "nan"]),
        (["--weights=task0=much"], ["NAME=NUMBER", "much"]),
        (["--weights="], ["NAME=NUMBER", "''"]),
        (["--weights=openai"], ["--encoder", "--weights"]),
        (["--weights=task0=1,task0=2"], ["once", "task0"]),
        (["--depth=steep"], ["depth", "linear:0.5:1.5", "steep"]),
        (["--depth="], ["depth", "linear:0.5:1.5"]),
        (["--depth==linear:0:1"], ["NAME=PROFILE"]),
        (["--depth=linear:0:1", "--depth=linear:1:2"], ["one profile of α, got 2"]),
        (["--depth=lions=linear:0:1"], ["experts of task0", "lions"]),
    ],
)
def test_bad_weights(run: Run, models: list[str], tmp_path: Path, options: list[str], words: list[str]) -> None:
    out = tmp_path / "out.safetensors"
    run("merge", *models, "--method=average", f"--out={out}", *options).assert_refused(*words)
    assert not out.exists()


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "--zoo=demo", "--checkpoint=x", "--weights=task0=1"],
        ["evaluate", "--zoo=demo", "--method=opcm", "--by-step", "--depth=linear:0:1"],
        ["evaluate", "--zoo=demo", "--method=rmm", "--weights=task0=2"],
        ["evaluate", "--zoo=demo", "--method=surgery", "--depth=linear:0:1"],
    ],
)
def test_where_weights_have_no_meaning(run: Run, tiny_zoo: Path, command: list[str]) -> None:
    run(*command).assert_refused("expected")
