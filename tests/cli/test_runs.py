"""Runs on the command line: what commands measured, found again, compared, and taken elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge.runs import RunStore
from tests.cli.conftest import Run
from tests.runs.builders import a_run


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "state"))
    return RunStore()


@pytest.fixture
def two(store: RunStore) -> tuple[str, str]:
    """Two runs on the same images: the second is right on two cats more."""
    return store.record(a_run("1100", "11", id="20260101-a")), store.record(a_run("1111", "11", alpha=0.8, id="20260102-b"))


@pytest.mark.usefixtures("tiny_zoo")
def test_evaluate_and_compare_are_kept(run: Run) -> None:
    assert run("evaluate", "--zoo=demo", "--method=ties", "--limit=6").err == ""
    assert run("compare", "--zoo=demo", "--methods=dare", "--limit=6").err == ""
    found = run("runs", "--json").json["runs"]
    assert {(one["kind"], one["method"]) for one in found} == {
        *(("evaluation", name) for name in ("zero-shot", "ties", "experts")),
        *(("comparison", name) for name in ("zero-shot", "average", "dare", "experts")),
    }
    ties = next(one for one in found if one["method"] == "ties")
    assert (ties["set"]["name"], ties["measured_on"]) == ("demo", "test split, 6 images a task") and ties["tried"]
    dare = run("runs", "list", "--method=dare", "--json").json["runs"][0]
    assert abs(dare["accuracy"]["mean"] - ties["accuracy"]["mean"]) <= 1
    told = run("runs", "compare", ties["id"], dare["id"], "--json").json["differences"][0]  # two commands, the same images
    assert told["value"] == pytest.approx(dare["accuracy"]["mean"] - ties["accuracy"]["mean"])


@pytest.mark.usefixtures("tiny_zoo")
def test_a_damaged_store_takes_no_command_down(run: Run, store: RunStore) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(b"not a database at all " * 100)
    done = run("compare", "--zoo=demo", "--methods=ties", "--limit=3")
    assert done.code == 0 and "ties" in done.out
    assert done.err.count("damaged or foreign") == 1 and "nothing was recorded" in done.err
    run("runs").assert_refused("damaged or foreign")


def test_list_and_filters(run: Run, store: RunStore, two: tuple[str, str]) -> None:
    assert [line.split()[0] for line in run("runs").out.splitlines()] == ["id", two[1], two[0]]
    store.update(two[0], name="base line", starred=True)
    for options in (["--starred"], ["--text", "BASE"], ["--method=ties", "--of=demo", "--kind=look", "--starred"]):
        assert [one["id"] for one in run("runs", "list", *options, "--json").json["runs"]] == [two[0]], options
    assert run("runs", "--ids").out == f"{two[1]}\n{two[0]}\n"
    assert "no such runs" in run("runs", "--kind=point").out
    assert len(run("runs", "--limit=1", "--json").json["runs"]) == 1


def test_show_compare_and_pin(run: Run, two: tuple[str, str]) -> None:
    shown = run("runs", "show", "20260101").out
    for words in ("ties", "density 0.2", "α = 0.5", "cats", "50.0", "validation split, 2 to 4 images"):
        assert words in shown, (words, shown)
    assert "+25.0 [" in run("runs", "compare", *two).out
    run("runs", "compare", two[1]).assert_refused("at least two ids")
    assert run("runs", "pin", two[0]).code == 0 and "(pinned)" in run("runs", "show", two[0]).out
    assert run("runs", "compare", two[1], "--json").json["differences"][0]["value"] == pytest.approx(0.25)
    assert run("runs", "unpin", two[0]).code == 0
    run("runs", "compare", two[1]).assert_refused("at least two ids")


def test_name_note_star_delete_check(run: Run, store: RunStore, two: tuple[str, str]) -> None:
    run("runs", "name", two[0], "the", "good one")
    run("runs", "note", two[0], "seen twice")
    run("runs", "star", *two)
    run("runs", "unstar", two[1])
    one = store.get(two[0])
    assert (one.name, one.note, one.starred, store.get(two[1]).starred) == ("the good one", "seen twice", True, False)
    run("runs", "star", two[0], "nobody").assert_refused("'nobody'")
    assert run("runs", "check").out.startswith("2 runs in ")
    assert run("runs", "delete", two[0]).out == "deleted 1 run\n" and [one.id for one in store.find()] == [two[1]]


@pytest.mark.usefixtures("two")
def test_export_and_import(run: Run, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("runs.csv", "runs.parquet", "shared"):
        assert run("runs", "export", "--out", tmp_path / name).out == f"wrote 2 runs to {tmp_path / name}\n"
    assert (tmp_path / "runs.csv").read_text().count("\n") == 3 and (tmp_path / "runs.parquet").read_bytes()[:4] == b"PAR1"
    run("runs", "export", "--out", tmp_path / "shared").assert_refused("exists already")
    assert run("runs", "import", tmp_path / "shared").out == "read 2 runs, 0 of them new\n"
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "other"))
    assert run("runs", "import", tmp_path / "shared", "--json").json == {"runs": 2, "new": 2}
    assert "+25.0 [" in run("runs", "compare", "20260101-a", "20260102-b").out


def test_mistakes(run: Run, two: tuple[str, str], tmp_path: Path) -> None:
    run("runs", "list", two[0]).assert_refused("no id")
    run("runs", "show").assert_refused("the id of a run")
    run("runs", "show", *two).assert_refused("expected one id")
    run("runs", "show", "2026").assert_refused("several ids")
    run("runs", "compare", two[0], "nope").assert_refused("no id begins")
    run("runs", "name").assert_refused("runs name ID TEXT")
    run("runs", "export").assert_refused("--out")
    run("runs", "export", "--kind=point", "--out", tmp_path / "a.csv").assert_refused("at least one run")
    run("runs", "export", "--out", tmp_path / "no" / "a.csv").assert_refused("no folder")
    run("runs", "import").assert_refused("one folder")
    run("runs", "import", tmp_path / "nowhere").assert_refused("no file or folder")
    run("runs", "publish").assert_refused("--to mlflow or trackio")
    run("runs", "guess").assert_refused("guess")
    assert not (tmp_path / "a.csv").exists()
