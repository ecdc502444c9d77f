"""Accuracies on a zoo of two tiny tasks: what is computed is the bench's business, here is what is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dcmerge import InputError, merge
from dcmerge.cli.output import WIDTH
from dcmerge.evaluation import choose_scale, wilson_interval
from dcmerge.methods import methods
from dcmerge.zoo import open_zoo
from tests.builders import write
from tests.cli.conftest import ADAPTED, SPLITS, TASKS, Run


@pytest.fixture(autouse=True)
def _tiny(tiny_zoo: Path) -> None:
    """Every test here runs on the tiny zoo."""


def test_evaluate_chooses_alpha_on_validation_and_reports_on_test(run: Run, zoo_data: Path) -> None:
    found = run("evaluate", "--zoo=demo", "--method=ties", "--set=density=0.5", "--json").json
    zoo = open_zoo("demo", data=zoo_data)
    merged = merge(zoo.vectors, "ties", density=0.5).deltas
    scale = choose_scale(zoo.bench, merged)
    expected = zoo.bench.evaluate(zoo.bench.merged_weights(merged, scale.value), "ties")
    zero_shot, row, experts = found["rows"]
    assert [r["name"] for r in found["rows"]] == ["zero-shot", "ties", "experts"]
    assert row["scale"]["value"] == scale.value and "validation split" in row["scale"]["origin"]
    assert row["accuracy"]["mean"] == pytest.approx(expected.mean)
    assert (found["split"], found["measured_on"]) == ("test", "test split, 18 images a task")
    assert found["logit_scale"] == {"value": 20.0, "origin": "from the encoder's configuration"} == row["accuracy"]["logit_scale"]
    for task in TASKS[:2]:
        told = row["accuracy"]["tasks"][task]
        right = round(told["accuracy"] * SPLITS["test"])
        assert told["interval"] == pytest.approx(wilson_interval(right, SPLITS["test"]))
        expert = experts["accuracy"]["tasks"][task]["accuracy"]
        assert told["normalised"] == pytest.approx(told["accuracy"] / expert)
    assert zero_shot["scale"] is None and experts["accuracy"]["mean_normalised"] == 1


def test_evaluate_in_text(run: Run) -> None:
    done = run("evaluate", "--zoo=demo", "--method=dc_merge", "--set=keep=0.1", "--limit=6")
    assert (done.code, done.err) == (0, "")
    for words in (
        "DC-Merge on the zoo demo",
        "keep 0.1",
        "validation split, 6 images a task",
        "test split, 6 images",
        "Logit scale of entropies and losses: 20, from the encoder's configuration.",
        "Wilson",
        "zero-shot",
        "own expert",
        "normalised",
        "mean",
    ):
        assert words in done.out, words
    assert max(map(len, done.out.splitlines())) <= WIDTH


def test_evaluate_with_a_given_scale_on_validation(run: Run) -> None:
    found = run("evaluate", "--zoo=demo", "--method=average", "--scale=1.5", "--split=val", "--json").json
    row = found["rows"][1]
    assert (row["scale"]["value"], row["scale"]["origin"]) == (1.5, "given")
    assert found["split"] == "val" and "12 images a task" in found["measured_on"]


def test_evaluate_warns_where_alpha_was_chosen_on_the_reported_images(run: Run) -> None:
    assert "flatter" in run("evaluate", "--zoo=demo", "--method=ties", "--split=val").out
    assert "flatter" not in run("evaluate", "--zoo=demo", "--method=ties", "--split=val", "--scale=1").out


def test_evaluate_a_checkpoint(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    assert run("merge", "--zoo=demo", "--method=ties", "--scale=0.8", "--out", out).code == 0
    saved = run("evaluate", "--zoo=demo", "--checkpoint", out, "--json").json["rows"][1]
    direct = run("evaluate", "--zoo=demo", "--method=ties", "--scale=0.8", "--json").json["rows"][1]
    assert saved["accuracy"]["tasks"] == direct["accuracy"]["tasks"] and saved["scale"] is None
    assert "checkpoint" in run("evaluate", "--zoo=demo", "--checkpoint", out).out


def test_evaluate_refuses_what_is_no_model_of_the_zoo(run: Run, zoo_data: Path, tmp_path: Path) -> None:
    evaluate = ["evaluate", "--zoo=demo", "--checkpoint"]
    delta = tmp_path / "delta.safetensors"
    run("merge", "--zoo=demo", "--method=ties", "--delta-only", "--out", delta)
    run(*evaluate, delta).assert_refused("whole model", "delta")
    run(*evaluate, zoo_data / "lora" / "task0").assert_refused("whole model", "LoRA")
    run(*evaluate, tmp_path / "none.safetensors").assert_refused("none.safetensors")
    base = load_file(zoo_data / "base.safetensors")
    run(*evaluate, write(tmp_path / "other.safetensors", {"w": torch.ones(2)})).assert_refused("missing", "visual.proj")
    spoiled = {**base, "visual.proj": base["visual.proj"] * torch.nan}
    run(*evaluate, write(tmp_path / "nan.safetensors", spoiled)).assert_refused("NaN", "visual.proj")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--method", "--checkpoint", "neither"]),
        (["--method=ties", "--checkpoint=x"], ["--method", "--checkpoint", "both"]),
        (["--checkpoint=x", "--scale=1"], ["--scale", "--method"]),
        (["--checkpoint=x", "--set=a=1"], ["--set", "--method"]),
        (["--method=ties", "--scale=best"], ["--scale", "auto", "best"]),
        (["--method=ties", "--split=train"], ["--split", "train"]),
        (["--method=ties", "--limit=0"], ["--limit", "'0'"]),
        (["--method=ties", "--set=density=7"], ["density", "[0, 1]"]),
        (["--method=other"], ["other"]),
    ],
)
def test_bad_options_of_evaluate(run: Run, options: list[str], words: list[str]) -> None:
    run("evaluate", "--zoo=demo", *options).assert_refused(*words)


def test_compare_runs_all_methods(run: Run) -> None:
    found = run("compare", "--zoo=demo", "--limit=9", "--val-limit=6", "--json").json
    rows = {row["name"]: row for row in found["rows"]}
    fitting = [slug for slug, method in methods().items() if "lora" not in method.needs]
    assert set(rows) == {"zero-shot", "task_arithmetic-0.3", *fitting, "experts"}
    assert list(rows)[:4] == ["zero-shot", "average", "task_arithmetic-0.3", "task_arithmetic"]
    assert (found["zoo"], found["measured_on"], found["val_limit"]) == ("demo", "test split, 9 images a task", 6)
    assert set(found["skipped"]) == {"knots", "robustmerge"} and "needs LoRA experts" in found["skipped"]["knots"]
    for slug in fitting:
        row = rows[slug]
        assert row["error"] is None and set(row["seconds"]) == {"merge", "scale", "evaluation"}
        assert set(row["accuracy"]["tasks"]) == set(TASKS[:2]) and row["worst"]["task"] in TASKS
        if methods()[slug].fixed_scale:
            assert row["scale"]["value"] == 1 and row["scale"]["origin"].startswith("fixed: ") and not row["scale"]["curve"]
        else:
            assert "6 images a task" in row["scale"]["origin"] and row["scale"]["curve"]
        difference = row["difference_to_average"]
        assert difference is None if slug == "average" else set(difference) == {"value", "low", "high"}


def test_compare_in_text(run: Run) -> None:
    done = run("compare", "--zoo=demo-lora", "--methods", "tsv_m, dc_merge", "--limit=6")
    assert done.code == 0
    # The tiny experts were never trained: that is said before anything is merged, in as many sentences.
    assert done.err.count("does not know its task") == done.err.count("warning: ") > 0
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    for name in ("zero-shot", "average", "tsv_m", "dc_merge", "experts"):
        assert any(line.startswith(name) for line in lines), name
    assert "ties" not in done.out and "paired bootstrap" in done.out and "6 images a task" in done.out


def test_compare_keeps_the_row_of_a_method_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import dcmerge.studies.measuring as measuring

    def failing(vectors, slug, **rest):
        if slug == "ties":
            raise InputError("ties needs 64 images a task, got none")
        return merge(vectors, slug, **rest)

    monkeypatch.setattr(measuring, "merge", failing)
    command = ["compare", "--zoo=demo", "--methods=ties,iso_c", "--limit=6"]
    rows = {row["name"]: row for row in run(*command, "--json").json["rows"]}
    assert rows["ties"]["error"] == "ties needs 64 images a task, got none" and rows["ties"]["accuracy"] is None
    assert rows["iso_c"]["accuracy"]
    done = run(*command)
    assert done.code == 0 and "ties failed: ties needs 64 images a task, got none" in done.out


@pytest.mark.parametrize("listed", ["", ",", "ties,other", "All"])
def test_bad_lists_of_methods(run: Run, listed: str) -> None:
    run("compare", "--zoo=demo", f"--methods={listed}").assert_refused("method")


def test_spectra_and_inspect_of_a_zoo(run: Run) -> None:
    assert run("inspect", "--zoo=demo").code == 0
    found = run("spectra", "--zoo=demo-lora", "--json").json
    assert [layer["name"] for layer in found["layers"]] == [ADAPTED]


def test_compare_writes_its_table(run: Run, tmp_path: Path) -> None:
    files = [f"--csv={tmp_path / 'table.csv'}", f"--markdown={tmp_path / 'table.md'}"]
    done = run("compare", "--zoo=demo", "--methods=ties", "--limit=6", "--diagnose", *files)
    assert done.code == 0 and "paired bootstrap" in done.out
    header, *lines = (tmp_path / "table.csv").read_text().splitlines()
    assert header.startswith("method,slug,parameters") and len(lines) == 4
    assert lines[2].startswith("TIES-Merging,ties,") and not lines[2].endswith(",,,,")
    assert (tmp_path / "table.md").read_text().count("\n| ") == 6


def test_compare_prints_one_table_instead_of_the_text(run: Run) -> None:
    printed = run("compare", "--zoo=demo", "--methods=average", "--limit=6", "--csv=-")
    assert printed.out.startswith("method,slug,") and len(printed.out.splitlines()) == 4


@pytest.mark.parametrize("options", [["--csv=-", "--markdown=-"], ["--csv=-", "--json"], ["--csv=/no/such/folder/x.csv"]])
def test_tables_that_cannot_be_written_are_refused_before_the_work(run: Run, options: list[str]) -> None:
    run("compare", "--zoo=demo", "--limit=6", *options).assert_refused()


def test_compare_takes_parameters_of_each_method(run: Run) -> None:
    command = ["compare", "--zoo=demo", "--methods=ties,iso_cts", "--limit=6", "--json"]
    rows = {row["name"]: row for row in run(*command, "--set=ties.density=0.5", "--set=ties.aggregate=sum").json["rows"]}
    assert rows["ties"]["parameters"] == {"density": 0.5, "aggregate": "sum", "trim": "model"}
    assert rows["iso_cts"]["parameters"] == methods()["iso_cts"].defaults()


@pytest.mark.parametrize("setting", ["density=0.5", "tsv_m.rank=3", "ties.density=7", "ties.other=1", "ties.=1"])
def test_bad_parameters_of_a_comparison(run: Run, setting: str) -> None:
    run("compare", "--zoo=demo", "--methods=ties", f"--set={setting}").assert_refused()


def test_one_method_is_compared_in_two_settings(run: Run, tiny_zoo: Path) -> None:
    options = ["--methods=ties,ties#2", "--set=ties.density=0.5", "--set=ties#2.density=0.1", "--limit=4"]
    rows = {row["name"]: row for row in run("compare", "--zoo=demo", *options, "--json").json["rows"]}
    assert (rows["ties"]["parameters"]["density"], rows["ties#2"]["parameters"]["density"]) == (0.5, 0.1)
    run("compare", "--zoo=demo", "--methods=ties,ties#x").assert_refused("expected a further setting as in ties#2, got 'ties#x'")
    run("compare", "--zoo=demo", "--methods=ties,nope#2").assert_refused("nope")
    run("compare", "--zoo=demo", "--methods=ties", "--set=ties#2.density=0.1").assert_refused("of a method that is compared")
