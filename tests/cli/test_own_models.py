"""Models of one's own from the command line: evaluated, compared, merged, on images in folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dcmerge.cli.output import WIDTH
from dcmerge.evaluation.own_models import open_bench
from dcmerge.methods import methods
from dcmerge.vectors.task_vectors import TaskVectors
from tests.cli.conftest import Run
from tests.own_models import TASKS, own_models


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("own")
    return folder, own_models(folder)


def test_evaluate_chooses_alpha_on_validation_and_reports_on_test(run: Run, own: tuple[Path, list[str]]) -> None:
    found = run("evaluate", *own[1], "--method=tsv_m", "--json").json
    zero_shot, row, experts = found["rows"]
    assert zero_shot["accuracy"]["mean"] < 0.5 < 0.95 < experts["accuracy"]["mean"]
    assert row["scale"]["origin"] == "validation split, 9 to 12 images a task" and row["scale"]["curve"]
    assert (found["zoo"], found["measured_on"]) == (None, "test split, 24 to 32 images a task")
    for task in TASKS:
        told = row["accuracy"]["tasks"][task]
        assert told["interval"][0] < told["accuracy"] < told["interval"][1]
        assert "training images" in row["accuracy"]["split_rules"][task]
    assert any("text tower of the base" in note for note in found["notes"])


def test_evaluate_in_text(run: Run, own: tuple[Path, list[str]]) -> None:
    done = run("evaluate", *own[1], "--method=ties", "--limit=6", "--scale=1", "--split-rule=official")
    assert (done.code, done.err) == (0, "") and max(map(len, done.out.splitlines())) <= WIDTH
    for words in ("TIES-Merging on 2 experts of", "Splits of tints: val: 12 of 120", "6 of val and 6 of test", "Heads: made"):
        assert words in " ".join(done.out.split()), words


def test_compare_runs_every_method_that_fits_those_with_images_too(run: Run, own: tuple[Path, list[str]], tmp_path: Path) -> None:
    files = [f"--csv={tmp_path / 't.csv'}", f"--markdown={tmp_path / 't.md'}"]
    found = run("compare", *own[1], "--quick", "--json", *files).json
    rows = {row["name"]: row for row in found["rows"]}
    fitting = {slug for slug, method in methods().items() if "lora" not in method.needs}
    assert set(rows) == {"zero-shot", *fitting, "task_arithmetic-0.3", "experts"} and set(found["skipped"]) == {
        "knots",
        "robustmerge",
    }
    assert {name: row["error"] for name, row in rows.items() if row["error"]} == {}
    assert "seed 0" in found["split_rules"]["corners"]
    assert "seed 0" in (tmp_path / "t.csv").read_text() and "seed 0" in (tmp_path / "t.md").read_text()
    done = run("compare", *own[1], "--methods=average", "--limit=6")
    assert "Splits of corners: val: 9 of 90" in done.out and "experts of" in done.out


def test_merge_by_a_method_with_images_then_evaluate_the_file(run: Run, own: tuple[Path, list[str]], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    assert run("merge", *own[1], "--method=regmean", "--scale=1", "--out", out).code == 0
    saved = run("evaluate", *own[1], "--checkpoint", out, "--json").json["rows"][1]
    direct = run("evaluate", *own[1], "--method=regmean", "--scale=1", "--json").json["rows"][1]
    assert saved["accuracy"]["tasks"] == direct["accuracy"]["tasks"]


def test_the_command_line_and_python_agree(run: Run, own: tuple[Path, list[str]]) -> None:
    folder, options = own
    vectors = TaskVectors.open(folder / "base.safetensors", {task: folder / f"{task}.safetensors" for task in TASKS})
    bench = open_bench(vectors, encoder=str(folder / "tiny.json"), data=str(folder / "data"), datasets={"corners": "none"})
    told = run("evaluate", *options, "--dataset=corners=none", "--method=average", "--json").json["rows"]
    assert told[0]["accuracy"] == json.loads(json.dumps(bench.zero_shot().to_dict()))
    assert set(told[0]["accuracy"]["tasks"]) == {"tints"}


def test_heads_from_a_folder(run: Run, own: tuple[Path, list[str]], tmp_path: Path) -> None:
    for task, names in TASKS.items():
        torch.save(torch.eye(len(names), 16), tmp_path / f"{task}_head.pt")
    found = run("evaluate", *own[1], f"--heads={tmp_path}", "--method=average", "--json").json
    assert found["notes"] == [] and found["rows"][2]["accuracy"]["mean"] < 0.9
    (tmp_path / "tints_head.pt").unlink()
    run("evaluate", *own[1], f"--heads={tmp_path}", "--method=average").assert_refused("tints", "head")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["evaluate", "--method=ties"], ["--expert", "neither"]),
        (["evaluate", "--zoo=demo", "--encoder=ViT-B-32", "--method=ties"], ["--encoder", "--zoo"]),
        (["compare", "--zoo=demo", "--data=x"], ["--data", "--zoo"]),
        (["compare", "--background", "OWN"], ["--background", "--zoo"]),
        (["evaluate", "--method=ties", "MODELS"], ["--encoder", "--zoo"]),
        (["evaluate", "--method=ties", "MODELS", "--data=x"], ["--encoder", "--data"]),
        (["evaluate", "--method=ties", "OWN", "--dataset=tints"], ["TASK=NAME", "tints"]),
        (["evaluate", "--method=ties", "OWN", "--dataset=other=mnist"], ["other", "tints"]),
        (["evaluate", "--method=ties", "OWN", "--dataset=tints=mnist"], ["MNIST", "download"]),
        (["evaluate", "--method=ties", "OWN", "--dataset=tints=cars", "--download"], ["Cars", "cannot be downloaded"]),
        (["evaluate", "--method=ties", "OWN", "--split-rule=x"], ["--split-rule", "lora"]),
        (["evaluate", "--method=ties", "OWN", "--weights=openai"], ["weights", "openai"]),
        (["merge", "--method=regmean", "MODELS", "--out=/tmp/never.safetensors"], ["regmean", "images"]),
    ],
)
def test_bad_options(run: Run, own: tuple[Path, list[str]], command: list[str], words: list[str]) -> None:
    models = [option for option in own[1] if option.startswith(("--base", "--expert"))]
    given = [option for word in command for option in {"OWN": own[1], "MODELS": models}.get(word, [word])]
    run(*given).assert_refused(*words)
