"""What a job may be asked to do is checked before it is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dcmerge import InputError, jobs
from dcmerge.sets.saved_sets import SavedSet, save_set

COMPARE = {"kind": "compare", "set": "demo", "methods": ["ties"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "adapt"}, "kind: expected one of compare, merge"),
        ({"set": "other"}, "set: expected one of demo"),
        ({"set": ["demo"]}, "set: expected one of demo"),
        ({"methods": []}, "at least one method"),
        ({"methods": ["tiez"]}, "got 'tiez'"),
        ({"methods": ["ties", {"slug": "ties"}]}, "every setting of a method once"),
        ({"methods": [{"slug": "ties", "parameters": {"density": 7}}]}, "density"),
        ({"methods": [{"slug": "ties", "parameters": {"rho": 7}}]}, "unknown parameter 'rho'"),
        ({"methods": [{"name": "ties"}]}, "unknown field 'name'"),
        ({"methods": [3]}, "got 3"),
        ({"split": "train"}, "split: expected one of test, val"),
        ({"limit": 0}, "limit: expected at least 1"),
        ({"val_limit": True}, "val_limit: expected at least 1"),
        ({"speed": 3}, "unknown field 'speed'"),
    ],
)
def test_a_comparison_that_could_not_run_is_refused(change: dict[str, Any], words: str, folder: Path) -> None:
    with pytest.raises(InputError, match=words):
        jobs.submit({**COMPARE, **change})
    assert not list(folder.iterdir())


@pytest.mark.parametrize("other", [None, 3, "compare", []])
def test_other_data_is_refused(other: Any) -> None:
    with pytest.raises(InputError, match="kind: expected"):
        jobs.specification(other)


def test_a_set_without_tasks_has_nothing_to_compare_on(small_set: str) -> None:
    with pytest.raises(InputError, match="tasks to evaluate on"):
        jobs.specification({**COMPARE, "set": small_set})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"out": "model.pt"}, "ends in .safetensors"),
        ({"out": None}, "ends in .safetensors"),
        ({"out": "nowhere/model.safetensors"}, "existing folder"),
        ({"scale": "much"}, "scale: expected a number"),
        ({"delta_only": "yes"}, "delta_only"),
        ({"method": None}, "method: expected"),
        ({"scale_origin": 3}, "scale_origin: expected a text"),
        ({"parameters": {"density": -1}}, "density"),
        ({"set": "folder:other"}, "set: expected one of"),
    ],
)
def test_a_merge_that_could_not_run_is_refused(
    change: dict[str, Any], words: str, small_set: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        jobs.submit({"kind": "merge", "set": small_set, "method": "ties", "out": "m.safetensors", **change})


def test_an_existing_file_is_never_replaced(small_set: str, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(InputError, match="exists already"):
        jobs.specification({"kind": "merge", "set": small_set, "method": "ties", "out": str(out)})


def test_defaults_are_filled_in_and_data_comes_back(tmp_path: Path) -> None:
    spec = jobs.specification(COMPARE)
    assert spec.methods[0].parameters == {"density": 0.2, "aggregate": "mean", "trim": "model"}
    assert spec.steps == ("zero-shot", "average", "ties", "experts") and "TIES" in spec.label
    assert jobs.specification(json.loads(json.dumps(jobs.to_data(spec)))) == spec
    merge = jobs.specification({"kind": "merge", "set": "demo", "method": "ties", "out": str(tmp_path / "m.safetensors")})
    assert merge.scale is None and jobs.specification(merge) == merge


def test_a_remembered_set_with_images_can_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMERGE_SETS", str(tmp_path / "sets"))
    save_set(SavedSet("mine", "b", {"x": "a"}, bench={"encoder": "ViT-B-32"}))
    save_set(SavedSet("bare", "b", {"x": "a"}))
    assert jobs.specification({**COMPARE, "set": "saved:mine"}).set == "saved:mine"
    with pytest.raises(InputError, match=r"with tasks to evaluate on .*saved:mine"):
        jobs.specification({**COMPARE, "set": "saved:bare"})


def test_a_comparison_holds_several_settings_of_one_method() -> None:
    given = [{"slug": "ties", "parameters": {"density": value}} for value in (0.1, 0.5)]
    spec = jobs.specification({"kind": "compare", "set": "demo", "methods": given})
    assert isinstance(spec, jobs.Compare) and spec.steps == ("zero-shot", "average", "ties", "ties#2", "experts")
    assert {name: own["density"] for name, own in spec.parameters.items()} == {"ties": 0.1, "ties#2": 0.5}
