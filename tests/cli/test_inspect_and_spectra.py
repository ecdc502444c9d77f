"""Looking at a set before merging it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcmerge import TaskVectors
from dcmerge.cli.output import WIDTH
from dcmerge.spectral.spectra import smooth
from dcmerge.vectors.layers import layer_of
from tests.builders import SHAPES, random_tensors, write
from tests.cli.conftest import TASKS, Run

MATRICES = ["visual.mlp.c_fc.weight", "visual.mlp.c_proj.weight", "visual.attn.out_proj.weight"]


def test_inspect_reports_a_set_that_fits(run: Run, models: list[str]) -> None:
    done = run("inspect", *models)
    assert (done.code, done.err) == (0, "")
    for words in ("4 matrix, 3 vector, 1 convolution, 1 skipped", "int64", "text_projection", "Can be merged: yes"):
        assert words in done.out
    assert max(len(line) for line in done.out.splitlines() if "safetensors" not in line) <= WIDTH


def test_inspect_in_json(run: Run, models: list[str]) -> None:
    found = run("inspect", *models, "--json").json
    assert found["mergeable"] is True and found["tasks"] == list(TASKS)
    assert found["counts"] == {"matrix": 4, "vector": 3, "convolution": 1, "skipped": 1}
    assert [p["name"] for p in found["parameters"] if p["kind"] == "skipped"] == ["steps"]
    for task in TASKS:
        ratio = found["delta_norms"][task] / found["base_norm"]
        assert found["relative_norms"][task] == pytest.approx(ratio)
    assert found["base"]["kind"] == "safetensors" and found["experts"]["task0"]["tensors"] == len(SHAPES) + 1


def test_inspect_prints_the_whole_report_of_a_misfit(run: Run, models: list[str], tmp_path: Path) -> None:
    broken = random_tensors(1)
    broken["visual.ln.bias"] = torch.full((12,), torch.nan)
    write(tmp_path / "task0.safetensors", broken)
    odd = {**random_tensors(2), "visual.mlp.c_fc.weight": torch.ones(2, 2)}
    del odd["logit_scale"]
    write(tmp_path / "task1.safetensors", odd)
    done = run("inspect", *models)
    done.assert_refused("cannot be merged", "1 reason")
    for words in ("missing in task1", "logit_scale", "[2, 2] in task1", "task0 holds NaN or Inf", "Can be merged: no"):
        assert words in " ".join(done.out.split())
    found = run("inspect", *models, "--json")
    found.assert_refused("cannot be merged")
    assert found.json["mergeable"] is False
    assert {finding["what"] for finding in found.json["findings"]} >= {"not finite", "left out"}


def test_inspect_of_adapters(run: Run, adapters: list[str]) -> None:
    done = run("inspect", *adapters)
    assert done.code == 0 and "2 matrix" in done.out and "lora" in done.out
    found = run("inspect", *adapters, "--json").json
    assert found["base"] is None and found["relative_norms"] == {"task0": None, "task1": None}
    assert all(norm > 0 for norm in found["delta_norms"].values())


def test_spectra_hold_the_raw_and_the_smoothed_values(run: Run, models: list[str], tmp_path: Path) -> None:
    found = run("spectra", *models, "--layer", "*mlp*", "--smoothing=linear", "--rho=2", "--rank=3", "--json").json
    assert [layer["name"] for layer in found["layers"]] == sorted(MATRICES[:2])
    vectors = TaskVectors.open(tmp_path / "base.safetensors", {t: tmp_path / f"{t}.safetensors" for t in TASKS})
    for layer in found["layers"]:
        factors = layer_of(vectors, layer["name"]).factors(3)
        for svd, (task, told) in zip(factors, layer["tasks"].items(), strict=True):
            assert task in TASKS and told["kept_rank"] == 3 and told["components"] == 12
            torch.testing.assert_close(torch.tensor(told["singular_values"]), svd.spectrum)
            torch.testing.assert_close(torch.tensor(told["smoothed"]), smooth(svd.s, "linear", 2.0))
            assert 1 <= told["smoothed_ratio"] <= 2 + 1e-5
            assert told["sum"] == pytest.approx(sum(told["singular_values"]), rel=1e-5)


def test_spectra_in_text_have_one_row_a_layer_and_task(run: Run, models: list[str]) -> None:
    done = run("spectra", *models)
    assert done.code == 0
    assert done.out.count("top 5 % of sum s²") == 4
    assert sum(line.startswith("  task0 ") for line in done.out.splitlines()) == 4
    assert max(map(len, done.out.splitlines())) <= WIDTH


def test_spectra_of_adapters_have_as_many_components_as_their_rank(run: Run, adapters: list[str]) -> None:
    found = run("spectra", *adapters, "--smoothing", "average", "--json").json
    told = [task for layer in found["layers"] for task in layer["tasks"].values()]
    assert found["kind"] == "lora" and {t["components"] for t in told} == {2}
    assert all(t["smoothed_ratio"] == pytest.approx(1) for t in told)


def test_a_matrix_too_small_for_one_component_a_task(run: Run, tmp_path: Path) -> None:
    base = write(tmp_path / "base.safetensors", {"w": torch.zeros(2, 5)})
    experts = [f"--expert=t{i}={write(tmp_path / f'{i}.safetensors', {'w': torch.ones(2, 5) * i})}" for i in range(3)]
    done = run("spectra", f"--base={base}", *experts, "--json")
    assert done.code == 0
    assert (
        done.json["layers"][0]["tasks"]["t0"] | {"smoothed_ratio": None, "kept_rank": 0, "smoothed": []}
        == done.json["layers"][0]["tasks"]["t0"]
    )
    assert run("spectra", f"--base={base}", *experts).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layer", "nothing*"], ["nothing*", "matrices such as"]),
        (["--layer", "logit_scale"], ["logit_scale"]),
        (["--smoothing", "cubic"], ["--smoothing", "cubic", "linear"]),
        (["--smoothing", "linear", "--rho", "0.5"], ["rho", "at least 1", "0.5"]),
        (["--rho", "many"], ["--rho", "many"]),
        (["--rho", "nan"], ["--rho", "nan"]),
        (["--rank", "0"], ["--rank", "'0'"]),
    ],
)
def test_spectra_refuse(run: Run, models: list[str], options: list[str], words: list[str]) -> None:
    run("spectra", *models, *options).assert_refused(*words)
