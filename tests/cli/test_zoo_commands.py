"""The commands on the embedded zoo itself, on few images."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from dcmerge.zoo import DATA, ZOOS
from tests.cli.conftest import Run

TASKS = 8


@pytest.mark.parametrize("zoo", ZOOS)
def test_inspect(run: Run, zoo: str) -> None:
    found = run("inspect", "--zoo", zoo, "--json").json
    assert found["mergeable"] and len(found["tasks"]) == TASKS and found["counts"]["matrix"] > 0
    assert all(norm > 0 for norm in found["delta_norms"].values())
    assert not [finding for finding in found["findings"] if finding["level"] != "note"]


def test_spectra_of_one_layer(run: Run) -> None:
    found = run("spectra", "--zoo=demo", "--layer=*resblocks.0*c_fc*", "--smoothing=linear", "--json").json
    [layer] = found["layers"]
    assert len(layer["tasks"]) == TASKS
    assert all(task["kept_rank"] == min(layer["shape"]) // TASKS for task in layer["tasks"].values())


def test_merge_writes_the_bases_own_names_and_dtypes(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    assert run("merge", "--zoo=demo", "--method=average", "--out", out).code == 0
    base, written = load_file(DATA / "base.safetensors"), load_file(out)
    assert {name: (v.dtype, v.shape) for name, v in written.items()} == {n: (v.dtype, v.shape) for n, v in base.items()}


def test_compare_two_methods_on_few_images(run: Run) -> None:
    found = run("compare", "--zoo=demo", "--methods=task_arithmetic", "--limit=3", "--val-limit=1", "--json").json
    assert [row["name"] for row in found["rows"]] == ["zero-shot", "average", "task_arithmetic-0.3", "task_arithmetic", "experts"]
    assert all(len(row["accuracy"]["tasks"]) == TASKS for row in found["rows"])
    assert found["measured_on"] == "test split, 3 images a task"


def test_a_quick_comparison_takes_few_images_unless_a_limit_is_given(run: Run) -> None:
    found = run("compare", "--zoo=demo", "--methods=average", "--quick", "--json").json
    assert found["measured_on"] == "test split, 40 images a task" and found["val_limit"] == 40
    assert run("compare", "--zoo=demo", "--methods=average", "--quick", "--limit=2", "--json").json["limit"] == 2
