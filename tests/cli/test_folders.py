"""``inspect FOLDER`` and ``--from FOLDER``: sets found by pointing at a folder, in every layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dcmerge.checkpoints import open_checkpoint
from dcmerge.cli.output import WIDTH
from tests.builders import random_tensors, write
from tests.cli.conftest import TASKS as ZOO_TASKS
from tests.cli.conftest import Run
from tests.sets.layouts.builders import (
    LAYOUTS,
    TASKS,
    adapters,
    clip,
    language_models,
    moved,
    old_task_vectors,
    plain,
    save,
    task_vectors,
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inspect_a_folder(run: Run, tmp_path: Path, layout: str) -> None:
    done = run("inspect", LAYOUTS[layout](tmp_path))
    assert (done.code, done.err) == (0, "")
    for words in (
        "1 set below",
        f"layout {layout}",
        "(base)",
        "2 experts would be merged",
        "Can be merged: yes",
        "Weight averaging: about",
        "DC-Merge: about",
    ):
        assert words in done.out
    found = run("inspect", tmp_path, "--json").json
    (one,) = found["sets"]
    assert one["layout"] == layout and len(one["experts"]) == 2 and one["base"] and one["lacks"] is None
    held = sum(file.stat().st_size for path in (one["base"], *one["experts"].values()) for file in open_checkpoint(path).files)
    assert one["total_bytes"] == held == sum(one["bytes"].values())
    report = found["report"]
    assert report["mergeable"] is True and set(report["tasks"]) == set(one["experts"])
    assert all(cost["seconds"] > 0 and cost["peak_bytes"] > 0 for cost in report["predicted"].values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_merge_from_a_folder(run: Run, tmp_path: Path, layout: str) -> None:
    out = tmp_path / "merged.safetensors"
    LAYOUTS[layout](tmp_path / "models")
    done = run("merge", "--from", tmp_path / "models", "--method", "average", "--out", out, "--json")
    assert done.code == 0 and set(done.json["tasks"]) <= {*TASKS, *(task.lower() for task in TASKS)}
    base = open_checkpoint(run("inspect", tmp_path / "models", "--json").json["sets"][0]["base"])
    assert {name: value.shape for name, value in load_file(out).items()} == {
        base.source_names[name]: info.shape for name, info in base.infos.items()
    }


def test_what_is_skipped_is_listed_with_its_reason(run: Run, tmp_path: Path) -> None:
    plain(tmp_path / "set")
    for number in range(8):
        (tmp_path / "set" / f"log{number}.txt").write_text("x")
    (tmp_path / "README.md").write_text("x")
    done = run("inspect", tmp_path)
    assert "log0.txt is no checkpoint" in done.out and "4 more: each is no checkpoint" in done.out
    assert "Not part of a set\n  README.md is no checkpoint" in done.out
    found = run("inspect", tmp_path, "--json").json
    assert len(found["sets"][0]["skipped"]) == 8 and [Path(s["path"]).name for s in found["skipped"]] == ["README.md"]


def test_several_sets_are_all_listed_and_one_is_named(run: Run, tmp_path: Path) -> None:
    plain(tmp_path / "one")
    task_vectors(tmp_path)
    done = run("inspect", tmp_path)
    assert done.code == 0 and "2 sets below" in done.out and "Can be merged" not in done.out
    assert run("inspect", tmp_path, "--json").json["report"] is None
    refused = run("merge", "--from", tmp_path, "--method", "average", "--out", tmp_path / "x.safetensors")
    refused.assert_refused("holds 2 sets. Name one", str(tmp_path / "one"), str(tmp_path / "ViT-B-32"))
    assert "Can be merged: yes" in run("inspect", tmp_path / "one").out
    base = tmp_path / "one" / "base.safetensors"
    assert "Can be merged: yes" in run("inspect", tmp_path, "--base", base).out


def test_several_sets_in_one_folder_are_named_behind_a_mark(run: Run, tmp_path: Path) -> None:
    for model in ("KnOTS-ViT-B-32", "KnOTS-ViT-L-14"):
        adapters(tmp_path, model + "_lora_R16_{task}")
    names = [one["name"] for one in run("inspect", tmp_path, "--json").json["sets"]]
    assert names == [f"{tmp_path}#KnOTS-ViT-B-32", f"{tmp_path}#KnOTS-ViT-L-14"]
    found = run("spectra", "--from", names[1], "--json").json
    assert found["kind"] == "lora" and set(found["layers"][0]["tasks"]) == {"dtd", "mnist"}
    assert "Can be merged: yes" in run("inspect", names[0]).out
    run("spectra", "--from", f"{tmp_path}#other").assert_refused("no set called other", "KnOTS-ViT-B-32")


def test_pickled_modules_ask_for_their_conversion(run: Run, tmp_path: Path) -> None:
    done = run("inspect", old_task_vectors(tmp_path))
    done.assert_refused("pickled module", "python -m dcmerge convert")
    assert "layout old_task_vectors" in done.out and "Can be merged" not in done.out
    run("spectra", "--from", tmp_path).assert_refused("python -m dcmerge convert")


def test_a_base_that_cannot_be_told_is_named_by_the_user(run: Run, tmp_path: Path) -> None:
    language_models(tmp_path, base="unknown")
    run("inspect", tmp_path).assert_refused("--base")
    done = run("inspect", tmp_path, "--base", tmp_path / "unknown")
    assert done.code == 0 and "2 experts would be merged" in done.out and "Can be merged: yes" in done.out
    found = run("spectra", "--from", tmp_path, "--base", tmp_path / "unknown", "--layer", "*q_proj*", "--json").json
    assert set(found["layers"][0]["tasks"]) == set(TASKS)
    run("spectra", "--from", tmp_path, "--base", tmp_path / "missing").assert_refused("missing")


def test_nothing_that_goes_together(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "alone.safetensors", random_tensors(1))
    done = run("inspect", tmp_path)
    done.assert_refused("none that go together")
    assert "alone.safetensors has no base" in done.out
    run("inspect", tmp_path / "alone.safetensors").assert_refused("Expected a folder")
    run("inspect", tmp_path / "missing").assert_refused("no file or folder")


def test_an_expert_that_does_not_fit_is_in_the_report(run: Run, tmp_path: Path) -> None:
    write(plain(tmp_path) / "DTD.safetensors", {"a.weight": torch.ones(2, 2), "b": torch.ones(3)})
    done = run("inspect", tmp_path)
    done.assert_refused("cannot be merged", "1 reason")
    assert "expected [6, 4], got [2, 2]" in done.out and "predicted" not in done.out


def test_names_from_disk_cannot_move_the_cursor(run: Run, tmp_path: Path) -> None:
    write(plain(tmp_path) / "a\x1b[2Jb.safetensors", moved(random_tensors(1, {"a.weight": (6, 4), "b": (3,)}), 1))
    (tmp_path / "c\x1b[2J.txt").write_text("x")
    done = run("inspect", tmp_path)
    assert done.code == 0 and "\x1b" not in done.out and "\\x1b" in done.out
    assert max(map(len, done.out.splitlines())) <= max(WIDTH, len(str(tmp_path)) + 60)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--from", "FOLDER", "--expert", "a=b"], ["--from", "--expert"]),
        (["--from", "FOLDER", "--zoo", "demo"], ["got both"]),
        (["FOLDER", "--from", "FOLDER"], ["one folder"]),
        ([], ["--from FOLDER"]),
    ],
)
def test_models_named_twice_or_not_at_all(run: Run, tmp_path: Path, options: list[str], words: list[str]) -> None:
    plain(tmp_path)
    run("inspect", *(option.replace("FOLDER", str(tmp_path)) for option in options)).assert_refused(*words)


def test_evaluate_and_compare_models_of_a_folder_on_a_zoos_tasks(run: Run, tiny_zoo: Path) -> None:
    told = ["--method", "average", "--scale", "1", "--zoo", "demo", "--json"]
    zoo, folder = run("evaluate", *told), run("evaluate", *told, "--from", tiny_zoo / "experts")
    assert (zoo.code, folder.code) == (0, 0), folder
    measured = [[(row["name"], row["accuracy"]) for row in done.json["rows"]] for done in (zoo, folder)]
    assert measured[0] == measured[1] and len(measured[0]) == 3
    found = run("compare", "--zoo", "demo", "--methods", "average", "--from", tiny_zoo / "lora", "--json")
    assert found.code == 0 and set(found.json["rows"][0]["accuracy"]["tasks"]) == set(ZOO_TASKS[:2])


def test_evaluation_needs_tasks_and_models_of_them(run: Run, tiny_zoo: Path, tmp_path: Path) -> None:
    run("evaluate", "--from", tiny_zoo / "experts", "--method", "average").assert_refused("--zoo")
    run("evaluate", "--zoo", "demo", "--base", "x", "--method", "average").assert_refused("got both")
    for name in ("base", "birds"):
        save(tmp_path / f"{name}.pt", clip(0).state_dict())
    run("evaluate", "--zoo", "demo", "--from", tmp_path, "--method", "average").assert_refused("birds", "task0")
    folder = tiny_zoo / "experts"
    run("compare", "--zoo", "demo", "--from", folder, "--methods", "average", "--background").assert_refused("--background")
