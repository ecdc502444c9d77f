"""The store of runs: what goes in comes out, once, and nothing that a file holds takes it down."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dcmerge.errors import InputError
from dcmerge.runs import Run, RunStore, images_of
from dcmerge.runs.fields import from_data, to_data
from dcmerge.runs.schema import MIGRATIONS
from tests.builders import tiny_bench
from tests.runs.builders import SET, a_run, hits

REPOSITORY = Path(__file__).resolve().parents[2]


def told(run: Run) -> dict[str, object]:
    """Everything that a run says, but for when and under which id."""
    return {name: value for name, value in to_data(run).items() if name not in ("id", "made")}


def test_what_goes_in_comes_out(store: RunStore) -> None:
    run = a_run("1101", "01", group="sweep-1", recipe={"method": "ties"}, seconds=1.5, tried="best of 40", note="so\nso")
    found = RunStore(store.path).get(store.record(run))
    assert told(found) == told(run)
    assert found.id and found.made.endswith("+00:00")
    assert found.hits["cats"].equal(hits("1101")) and found.hits["dogs"].equal(hits("01"))
    assert found.accuracies == {"cats": 0.75, "dogs": 0.5} and found.normalised == {"cats": 0.75, "dogs": 1.0}
    assert found.evaluation.mean == 0.625 and found.evaluation.mean_normalised == 0.875
    assert (found.split, found.evaluation.images, found.evaluation.tasks["cats"].joint) == ("val", "2 to 4", 0.25)


def test_nine_images_are_two_bytes(store: RunStore) -> None:
    found = store.get(store.record(a_run("101010101", "1")))
    assert found.hits["cats"].equal(hits("101010101"))
    assert to_data(found)["evaluation"]["tasks"][0]["hits"] == "aa80"


def test_the_same_run_is_kept_once_with_its_name(store: RunStore) -> None:
    first = store.record(a_run())
    store.update(first, name="good", starred=True)
    assert store.record(a_run()) == first
    assert store.record(a_run(group="sweep")) != first and store.record(a_run(alpha=0.6)) != first
    assert store.record(a_run("1111")) != first  # another version of the method: another outcome
    assert len(store.find()) == 4 and store.get(first).name == "good" and store.get(first).starred


def test_find_filters_and_orders(store: RunStore) -> None:
    times = [f"2026-01-0{day}T10:00:00.000+00:00" for day in (1, 2, 3)]
    ties = store.record(a_run(made=times[1]))
    point = store.record(a_run(method="dare", kind="point", group="sweep-7", made=times[0]))
    other = store.record(a_run(set=replace(SET, name="own", hash="b" * 32), made=times[2]))
    store.update(point, note="50 % of_it")
    assert [run.id for run in store.find()] == [other, ties, point]
    assert [run.id for run in store.find(limit=1)] == [other]
    for found, query in {
        point: {"kind": "point"},
        other: {"set": "b" * 32},
        ties: {"set": "demo", "method": "ties"},
    }.items():
        assert [run.id for run in store.find(**query)] == [found], query
    assert [run.id for run in store.find(group="sweep-7")] == [point]
    assert [run.id for run in store.find(text="% OF_")] == [point] and store.find(text="%%") == []
    store.update(ties, starred=True)
    assert [run.id for run in store.find(starred=True)] == [ties] and len(store.find(starred=False)) == 2
    assert store.find(split="test") == []


def test_ids_may_be_cut_short_but_not_vague(store: RunStore) -> None:
    id, other = store.record(a_run(id="20260101-aa")), store.record(a_run(alpha=1.0, id="20260101-aab"))
    assert store.get("20260101-aab").id == other and store.get(id).id == id
    for name, words in {"2026": "several ids", "x": "no id", "": "no id", "%": "no id"}.items():
        with pytest.raises(InputError, match=words):
            store.get(name)


def test_a_difference_is_paired_image_by_image(store: RunStore) -> None:
    better, worse = (store.record(a_run(cats, "11", alpha=place)) for place, cats in enumerate(("1111", "1100")))
    found = store.paired(better, worse)
    assert found.value == 0.25 and found.low >= 0  # no image is worse, so no resample is
    with pytest.raises(InputError, match="same images.*which are others"):
        store.paired(better, store.record(a_run("1111", "11", images="other images")))


def test_pins_are_one_a_set_and_go_with_their_run(store: RunStore) -> None:
    first, second = store.record(a_run()), store.record(a_run(alpha=0.9))
    assert store.pinned(SET) is None
    store.pin(first)
    store.pin(second)
    pinned = store.pinned(SET)
    assert pinned is not None and pinned.id == second
    assert store.delete([second, "nobody"]) == 1 and store.pinned(SET) is None
    store.pin(first)
    store.unpin(SET)
    assert store.pinned(SET) is None and store.find()[0].id == first


def test_all_of_several_are_recorded_or_none(store: RunStore) -> None:
    with pytest.raises(InputError, match="kind"):
        store.record_all([a_run(), a_run(kind="guess")])
    assert store.find() == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"values": {"x": float("nan")}}, "values"),
        ({"values": {"x": object()}}, "values"),
        ({"note": "x" * 20_000}, "note"),
        ({"made": "yesterday"}, "made"),
        ({"images": ""}, "images"),
        ({"method": ""}, "method"),
    ],
)
def test_what_cannot_be_kept_is_refused(store: RunStore, bad: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        store.record(a_run(**bad))
    assert not store.path.exists() or store.find() == []


def test_a_file_that_is_no_store_is_refused_in_one_sentence(store: RunStore) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(b"this is a letter, not a database\n" * 100)
    for action in (store.find, lambda: store.record(a_run()), lambda: store.get("x"), lambda: store.pinned(SET), store.check):
        with pytest.raises(InputError, match="damaged or foreign") as caught:
            action()
        assert "\n" not in str(caught.value)
    assert store.path.read_bytes().startswith(b"this is a letter")


def test_a_store_cut_short_is_refused(store: RunStore) -> None:
    store.record_all(a_run(alpha=float(place)) for place in range(200))
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = store.path.read_bytes()
    store.path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(InputError, match="damaged"):
        store.find()


def test_other_databases_and_newer_stores_are_refused(store: RunStore) -> None:
    store.path.parent.mkdir()
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(InputError, match="newer dcmerge"):
        store.find()
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    with pytest.raises(InputError, match="no such table"):
        store.find()


def test_a_folder_in_its_place_and_a_folder_that_cannot_be_made_are_refused(store: RunStore, tmp_path: Path) -> None:
    store.path.mkdir(parents=True)
    with pytest.raises(InputError, match="expected a file"):
        store.find()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can be written"):
        RunStore(tmp_path / "file" / "runs.sqlite3").find()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE runs SET details = '{'",
        "UPDATE runs SET details = '[1]'",
        "UPDATE runs SET details = x'00ff'",
        "UPDATE runs SET kind = 'guess'",
        "UPDATE runs SET alpha = 'much'",
        "UPDATE runs SET method = x'00'",
        "UPDATE runs SET set_name = x'07'",
        "UPDATE accuracies SET hits = x'ffffff'",
        "UPDATE accuracies SET hits = 'ff'",
        "UPDATE accuracies SET images = -1",
        "UPDATE accuracies SET images = 1 << 60",
        "UPDATE accuracies SET expert = 7",
        "UPDATE accuracies SET joint = 1000",
        "DELETE FROM accuracies",
    ],
)
def test_a_damaged_entry_is_left_out_and_named(store: RunStore, change: str) -> None:
    damaged = store.record(a_run())
    with sqlite3.connect(store.path) as connection:
        connection.execute(change)
    whole = store.record(a_run(alpha=0.7))
    assert [run.id for run in store.find()] == [whole]
    assert store.check() == (2, (damaged,))
    with pytest.raises(InputError, match="damaged"):
        store.get(damaged)
    assert store.delete([damaged]) == 1 and store.check() == (1, ())


def test_several_processes_record_at_once(store: RunStore) -> None:
    """Into a file that is not there yet: who comes second finds the tables made."""
    code = (
        "import sys; from dcmerge.runs import RunStore; from tests.runs.builders import a_run\n"
        "for place in range(25): RunStore().record(a_run(alpha=place + int(sys.argv[1]) / 10))"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(n)], cwd=REPOSITORY) for n in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert len(store.find()) == 75


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "guess"),
        ("kind", None),
        ("set", "demo"),
        ("values", []),
        ("values", {"a": float("inf")}),
        ("alpha", "1"),
        ("alpha", True),
        ("alpha", float("nan")),
        ("seconds", [1]),
        ("recipe", 3),
        ("evaluation", None),
        ("evaluation", {"tasks": "cats"}),
        ("evaluation", {"split": "val", "tasks": [{"task": "cats", "images": 9, "hits": "zz"}]}),
        ("evaluation", {"split": "val", "tasks": [{"task": "cats", "images": 9, "hits": "ff"}]}),
        ("evaluation", {"split": "train", "tasks": [{"task": "cats", "images": 1, "hits": "80"}]}),
        ("evaluation", {"split": "val", "tasks": []}),
        ("made", 5),
        ("surprise", 1),
    ],
)
def test_data_of_another_form_is_refused(field: str, value: object) -> None:
    data = to_data(a_run())
    assert told(from_data(data)) == told(a_run())
    with pytest.raises(InputError):
        from_data({**data, field: value})
    with pytest.raises(InputError):
        from_data([data])


def test_texts_lose_what_moves_the_cursor() -> None:
    run = from_data({**to_data(a_run()), "name": "a\x1b[2Jb\u202ec", "note": "two\nlines"})
    assert (run.name, run.note) == ("a [2Jb c", "two\nlines")


def test_the_digest_of_images_tells_them_apart(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path)
    found = images_of(bench, "val", None)
    assert found == images_of(bench, "val", None) and len(found) == 32
    assert len({found, images_of(bench, "test", None), images_of(bench, "val", 3), images_of(bench, "val", 3, seed=1)}) == 4
