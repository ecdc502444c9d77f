"""Folders, adapters and cards through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import dcmerge
from dcmerge.checkpoints import open_checkpoint
from tests.cli.conftest import Run


def test_adapters_become_an_adapter(run: Run, adapters: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("merge", *adapters, "--method=tsv_m", "--as-adapter", "--scale=0.5", "--out", out, "--json").json
    assert done["content"] == "adapter" and done["discarded_energy"] < 1e-12
    assert done["ranks"] == [4, 4] and done["tensors"] == len(load_file(out / "adapter_model.safetensors")) == 4
    assert done["sha256"] == open_checkpoint(out).fingerprint
    assert done["files"] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    shown = run("merge", *adapters, "--method=dc_merge", "--as-adapter", "--out", out, "--force", "--adapter-rank=1").out
    text = " ".join(shown.split())  # lines are broken where the window ends
    assert "as a PEFT adapter" in text and "rank 1; " in text and "energy (squared norm) is discarded" in text
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 1


def test_a_method_that_is_dense_warns_of_what_the_rank_costs(run: Run, adapters: list[str], tmp_path: Path) -> None:
    done = run("merge", *adapters, "--method=ties", "--as-adapter", "--out", tmp_path / "out")
    assert done.code == 0 and "warning: the method gives dense matrices" in done.out


def test_a_folder_has_the_model_and_its_card(run: Run, models: list[str], tmp_path: Path) -> None:
    done = run("merge", *models, "--method=average", "--out", tmp_path / "out", "--json").json
    assert (done["content"], done["files"]) == ("model", ["README.md", "model.safetensors"])
    assert run("merge", *models, "--method=average", "--out", tmp_path / "file.safetensors", "--card").code == 0
    assert (tmp_path / "file.md").read_text() == (tmp_path / "out/README.md").read_text()
    written, wanted = load_file(tmp_path / "out/model.safetensors"), load_file(tmp_path / "file.safetensors")
    assert written.keys() == wanted.keys() and all((written[name] == wanted[name]).all() for name in wanted)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--as-adapter", "--out=a.safetensors"], ["expected a folder for an adapter", "a.safetensors"]),
        (["--as-adapter", "--delta-only", "--out=a"], ["--as-adapter or --delta-only"]),
        (["--adapter-rank=2", "--out=a"], ["adapter-rank: expected --as-adapter"]),
        (["--as-adapter", "--adapter-rank=0", "--out=a"], ["at least 1", "'0'"]),
        (["--delta-only", "--out=a"], ["expected one file .safetensors for the delta alone"]),
        (["--as-adapter", "--out=no/such/a"], ["there is no folder"]),
        (["--as-adapter", "--out=full"], ["exists already", "notes.txt"]),
        (["--as-adapter", "--force", "--out=full"], ["not a folder that a merge wrote", "notes.txt"]),
        (["--as-adapter", "--force", "--out=task0"], ["another file or folder"]),
        (["--as-adapter", "--out=nul\0"], ["NUL"]),
    ],
)
def test_bad_outputs(
    run: Run, adapters: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    run("merge", *adapters, "--method=average", *options).assert_refused(*words)
    assert sorted(tmp_path.rglob("*")) == before


def test_full_experts_become_no_adapter(run: Run, models: list[str], tmp_path: Path) -> None:
    done = run("merge", *models, "--method=average", "--as-adapter", "--out", tmp_path / "out")
    done.assert_refused("expected LoRA adapters to write an adapter, got full fine-tuned experts")
    assert not (tmp_path / "out").exists()


def test_a_union_is_told_by_inspect(run: Run, adapters: list[str], tmp_path: Path) -> None:
    weights = tmp_path / "task1/adapter_model.safetensors"
    save_file({name: value for name, value in load_file(weights).items() if "fc1" not in name}, weights)
    done = run("inspect", *adapters)
    assert done.code == 0 and "note: task1 does not adapt 1 of the 2 weights that are merged" in done.out
    merged = dcmerge.TaskVectors.open(None, {t: tmp_path / t for t in ("task0", "task1")})
    assert len(merged.parameters) == 2


def test_what_is_measured_stands_in_the_card(run: Run, tiny_zoo: Path, tmp_path: Path) -> None:
    done = run("merge", "--zoo=demo", "--method=average", "--measure=test", "--out", tmp_path / "out", "--json").json
    card = (tmp_path / "out/README.md").read_text()
    assert done["accuracies"]["split"] == "test" and "test split, 18 images a task" in card
    for task, found in done["accuracies"]["tasks"].items():
        assert f"| {task} | {100 * found['accuracy']:.1f} |" in card


def test_a_report_of_what_was_measured_is_named_by_the_card(run: Run, tiny_zoo: Path, tmp_path: Path) -> None:
    merge = ("merge", "--zoo=demo", "--method=average", "--measure=val", "--report")
    done = run(*merge, "--out", tmp_path / "out", "--json").json
    assert "report.html" in done["files"] and "[report.html](report.html)" in (tmp_path / "out/README.md").read_text()
    html = (tmp_path / "out/report.html").read_text()
    assert f"{100 * done['accuracies']['mean']:.1f} [" in html and "recipe of Weight averaging" in html
    assert run(*merge, "--out", tmp_path / "out", "--force").code == 0  # the report is one of a merge's own files
    one = run(*merge, "--card", "--out", tmp_path / "a b.safetensors", "--json").json
    assert one["files"] == ["a b.safetensors", "a b.md", "a b.html"]
    assert "[a b.html](a%20b.html)" in (tmp_path / "a b.md").read_text()
    run("merge", "--zoo=demo", "--method=average", "--report", "--out", tmp_path / "no").assert_refused(
        "report: expected --measure"
    )


def test_nothing_is_measured_without_images(run: Run, models: list[str], tmp_path: Path) -> None:
    done = run("merge", *models, "--method=average", "--measure=test", "--out", tmp_path / "out")
    done.assert_refused("measure: expected a set with images")
    assert not (tmp_path / "out").exists()
