"""Runs for other people: folders that are read back whole, tables, and trackers."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas
import pytest

from dcmerge.errors import InputError
from dcmerge.runs import RunStore, SetId
from dcmerge.runs.fields import to_data
from dcmerge.runs.publishing import metrics, params, publish
from dcmerge.runs.sharing import import_runs, read_folder, write_folder
from dcmerge.runs.tables import as_csv, as_parquet, table
from tests.runs.builders import a_run

RECIPE = {"method": "ties", "inputs": {"base": {"file": "/home/me/secret/base.safetensors", "sha256": "c" * 64}}}


def test_a_folder_goes_into_another_store_whole(store: RunStore, tmp_path: Path) -> None:
    first = store.record(a_run(recipe=RECIPE, note="two\nlines", set=SetId("/home/me/base.safetensors", "a" * 32)))
    second = store.record(a_run("0000", alpha=0.7, name="flat", starred=True))
    folder = write_folder(store.find(), tmp_path / "shared")
    assert "secret" not in "".join(path.read_text() for path in folder.iterdir())
    other = RunStore(tmp_path / "other.sqlite3")
    runs = read_folder(folder)
    assert import_runs(runs, other) == 2 and import_runs(runs, other) == 0
    flat = other.get(second)
    assert to_data(flat) == to_data(store.get(second))
    assert other.get(first).recipe["inputs"]["base"] == {"file": "base.safetensors", "sha256": "c" * 64}
    assert other.get(first).set.name == "base.safetensors" and other.get(first).note == "two\nlines"
    assert other.paired(first, second).value == store.paired(first, second).value == 0.25


def test_another_run_of_the_same_id_gets_one_of_its_own(store: RunStore) -> None:
    mine = store.record(a_run(id="x-1"))
    theirs = store.record(a_run("0000", id="x-1"))
    assert mine == "x-1" != theirs and store.get(theirs).accuracies["cats"] == 0 and store.count() == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "line 1: expected JSON"),
        (b"\n\n[1]\n", "line 3: run: expected names"),
        (b"\xff\xfe", "line 1: expected JSON"),
        (b"[" * 100_000, "line 1"),
        (b"{}" + b" " * (5 << 20), "at most"),
    ],
)
def test_a_folder_of_something_else_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "runs.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_folder(tmp_path)


def test_no_folder_and_a_folder_that_is_there_are_refused(store: RunStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file or folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="runs export wrote"):
        read_folder(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_folder([a_run()], tmp_path / "full")


def test_one_bad_run_keeps_all_of_a_folder_out(store: RunStore, tmp_path: Path) -> None:
    good, bad = to_data(a_run()), {**to_data(a_run()), "kind": "guess"}
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    with pytest.raises(InputError, match="line 2: kind"):
        read_folder(tmp_path)


def test_tables_hold_raw_values_and_no_formula() -> None:
    rows = table([a_run("1101", "01", name="=HYPERLINK(1)", id="a"), a_run(id="b")])
    assert (rows[0]["accuracy"], rows[0]["accuracy: cats"], rows[0]["normalised"]) == (62.5, 75.0, 87.5)
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert read[0]["name"] == "'=HYPERLINK(1)" and json.loads(read[0]["parameters"]) == {"density": 0.2}
    frame = pandas.read_parquet(io.BytesIO(as_parquet(rows)))
    assert list(frame["id"]) == ["a", "b"] and frame["accuracy: dogs"].tolist() == [50.0, 50.0]
    assert as_csv(table([])) == "" and len(pandas.read_parquet(io.BytesIO(as_parquet([])))) == 0


def test_what_a_tracker_is_told() -> None:
    run = a_run("1101", "01", values={"density": 0.2, "a:b;": "x" * 900}, seconds=2.0)
    assert params(run) | {"parameter.a_b_": "x" * 500} == params(run)
    assert params(run)["parameter.density"] == "0.2" and params(run)["alpha"] == "0.5"
    told = metrics(run)
    assert (told["accuracy"], told["worst"], told["accuracy/cats"], told["seconds"]) == (0.625, 0.5, 0.75, 2.0)


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_named_in_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"pip install dcmerge\[{name}\]"):
        publish([a_run()], name)
    with pytest.raises(InputError, match="mlflow, trackio"):
        publish([a_run()], "wandb")


def test_an_error_of_a_tracker_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client that finds no server: any error of such a library is told in a line."""

    def refuse(**_: object) -> None:
        raise ConnectionError("no server\nTraceback: many lines")

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=refuse))
    monkeypatch.setitem(sys.modules, "mlflow.entities", SimpleNamespace())
    with pytest.raises(InputError, match=r"mlflow did not take the runs \(ConnectionError: no server\)"):
        publish([a_run()], "mlflow")


def test_runs_in_a_real_trackio(store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    store.record(a_run("1101", "01", note="good"))
    assert [publish(store.find(), "trackio", experiment="mine") for _ in range(2)] == [1, 0]
    [found] = trackio.Api().runs("mine")
    assert found.config["method"] == "ties" and found.config["note"] == "good"


def test_runs_in_a_real_mlflow(store: RunStore, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    store.record(a_run("1101", "01", note="good"))
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert [publish(store.find(), "mlflow", address=address, experiment="mine") for _ in range(2)] == [1, 0]
    client = mlflow.MlflowClient(tracking_uri=address)
    [found] = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert found.data.metrics["accuracy"] == 0.625 and found.data.params["method"] == "ties"
