"""Remembered sets: what is written is read again, whatever the name, and damage is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge.checkpoints import Roots
from dcmerge.errors import InputError
from dcmerge.sets.model_sets import SAVED, available, open_set_by_name, stamp
from dcmerge.sets.saved_sets import SavedSet, forget_set, save_set, saved_sets
from tests.ui.conftest import TASKS, write_set


@pytest.fixture(autouse=True)
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of remembered sets for each test."""
    monkeypatch.setenv("DCMERGE_SETS", str(tmp_path / "sets"))
    return tmp_path / "sets"


def of_folder(folder: Path, name: str) -> SavedSet:
    return SavedSet(name, str(folder / "base.safetensors"), {task: str(folder / f"{task}.safetensors") for task in TASKS})


def test_a_set_is_remembered_replaced_and_forgotten(sets: Path) -> None:
    assert saved_sets() == {}
    one = SavedSet("Zwei & drei / ../ ü", "b", {"x": "a"}, bench={"encoder": "ViT-B-32"})
    save_set(one)
    assert saved_sets() == {one.name: one}
    other = SavedSet(one.name, None, {"y": "c"})
    save_set(other)
    assert saved_sets() == {one.name: other} and len(list(sets.iterdir())) == 1
    forget_set(one.name)
    forget_set("never there")
    assert saved_sets() == {} and list(sets.iterdir()) == []


def test_what_is_no_set_is_refused_or_passed_over(sets: Path) -> None:
    for name, base, experts in (
        ("", "b", {"x": "a"}),
        ("a\nb", "b", {"x": "a"}),
        ("a" * 81, "b", {"x": "a"}),
        ("a", "b", {}),
        ("a", "", {"x": "a"}),
        ("a", "b", {"x": ""}),
    ):
        with pytest.raises(InputError, match="expected"):
            SavedSet(name, base, experts)
    sets.mkdir()
    for place, text in enumerate(("{", "[]", '{"name": "x"}', '{"name": "x", "base": null, "experts": {"a": 3}}')):
        (sets / f"{place}.json").write_text(text)
    assert saved_sets() == {}


def test_a_remembered_set_opens_where_its_files_lie_below_a_root(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "inside")
    save_set(of_folder(folder, "mine"))
    allowed, name = Roots([tmp_path / "inside"]), f"{SAVED}mine"
    assert available(allowed)[name] == "mine"
    models = open_set_by_name(name, allowed)
    assert models.vectors.tasks == TASKS and models.title == "mine" and models.stamp == stamp(name, allowed)
    with pytest.raises(InputError, match="Expected a path below"):
        open_set_by_name(name, Roots([tmp_path / "elsewhere"]))
    forget_set("mine")
    with pytest.raises(InputError, match="forgotten"):
        open_set_by_name(name, allowed)


def test_a_changed_file_changes_the_stamp(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "inside")
    save_set(of_folder(folder, "mine"))
    before = stamp(f"{SAVED}mine", Roots([tmp_path]))
    (folder / "birds.safetensors").write_bytes((folder / "cars.safetensors").read_bytes())
    assert stamp(f"{SAVED}mine", Roots([tmp_path])) != before


def test_a_bench_reads_nothing_outside_the_roots(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "inside")
    outside = tmp_path / "outside"
    outside.mkdir()
    one = of_folder(folder, "mine")
    for bench in (
        {"encoder": "ViT-B-32", "data": str(outside)},
        {"encoder": "ViT-B-32", "heads": str(outside)},
        {"encoder": str(outside / "x.json")},
        {"encoder": "ViT-B-32", "datasets": {"birds": str(outside)}},
        {"encoder": "ViT-B-32", "weights": str(outside)},
    ):
        save_set(SavedSet(one.name, one.base, one.experts, bench=bench))
        with pytest.raises(InputError, match="Expected a path below|There is no"):
            open_set_by_name(f"{SAVED}mine", Roots([folder]))
