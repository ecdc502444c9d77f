"""Bad input gets one clear line and exit code 2, whatever is wrong; a set that does not fit gets every reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from dcmerge.zoo import open_zoo
from tests.builders import random_factors, random_tensors, write, write_adapter
from tests.cli.conftest import Run


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff" * 64)


def _missing(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _empty_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


BROKEN_FILES: list[Callable[[Path], None]] = [
    _truncated,
    _garbage,
    _missing,
    _empty,
    _empty_folder,
    pytest.param(_pipe, marks=pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")),
]


@pytest.mark.parametrize("command", ["inspect", "spectra", "merge"])
@pytest.mark.parametrize("spoil", BROKEN_FILES)
def test_broken_files(run: Run, models: list[str], tmp_path: Path, command: str, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "task1.safetensors")
    merging = ["--method=average", f"--out={tmp_path / 'out.safetensors'}"] if command == "merge" else []
    run(command, *models, *merging).assert_refused("task1.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_a_pickled_module_is_refused_with_the_way_to_convert_it(run: Run, models: list[str], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"whole{suffix}"
    torch.save(torch.nn.Linear(3, 3), path)
    run("inspect", *models, f"--expert=whole={path}").assert_refused(path.name, "dcmerge convert")


def test_what_not_all_have_is_left_out_and_told(run: Run, models: list[str], tmp_path: Path) -> None:
    broken = random_tensors(1)
    broken["visual.mlp.c_fc.weight"] = torch.ones(3, 3)
    write(tmp_path / "task0.safetensors", broken)
    lacking = random_tensors(2)
    del lacking["visual.ln.bias"]
    write(tmp_path / "task2.safetensors", lacking)
    done = run("merge", "--method=average", f"--out={tmp_path / 'out.safetensors'}", "--json", *models)
    assert done.code == 0
    missing, other = done.json["left_out"]
    assert "task2" in missing and "visual.ln.bias" in missing and "[3, 3] in task0" in other
    text = run("merge", "--method=average", f"--out={tmp_path / 'again.safetensors'}", *models).out
    assert "visual.ln.bias" in text and "visual.mlp.c_fc.weight" in text


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_values_that_are_not_finite(run: Run, models: list[str], tmp_path: Path, value: float) -> None:
    spoiled = random_tensors(1)
    spoiled["visual.ln.bias"][3] = value
    write(tmp_path / "task0.safetensors", spoiled)
    done = run("merge", *models, "--method=average", f"--out={tmp_path / 'out.safetensors'}")
    assert done.code == 2 and "task0 holds NaN or Inf in: visual.ln.bias" in done.err
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "no_such"], ["no_such", "dc_merge", "ties"]),
        (["--method", "dc_merge", "--set", "speed=3"], ["speed", "rho"]),
        (["--method", "average", "--set", "rho=3"], ["average", "rho"]),
        (["--method", "dc_merge", "--set", "rho=0.5"], ["rho", "[1, 1000]", "0.5"]),
        (["--method", "dc_merge", "--set", "rho=fast"], ["rho", "fast"]),
        (["--method", "dc_merge", "--set", "rho=nan"], ["rho", "nan"]),
        (["--method", "dc_merge", "--set", "rank=2.5"], ["rank", "integer", "2.5"]),
        (["--method", "dc_merge", "--set", "elect=maybe"], ["elect", "on or off", "maybe"]),
        (["--method", "ties", "--set", "aggregate=max"], ["aggregate", "mean, sum", "max"]),
        (["--method", "ties", "--set", "density"], ["--set", "KEY=VALUE", "density"]),
        (["--method", "ties", "--set", "density=1", "--set", "density=0"], ["density", "twice"]),
        (["--method", "ties", "--scale", "auto"], ["--scale", "auto"]),
        (["--method", "ties", "--scale", "inf"], ["--scale", "inf"]),
        (["--method", "ties", "--scale", "5000"], ["scale", "5000"]),
        (["--method", "ties", "--expert", "nameless"], ["--expert", "NAME=PATH", "nameless"]),
        (["--method", "ties", "--expert", "=x"], ["--expert", "NAME=PATH"]),
        (["--method", "ties", "--expert", "task0=elsewhere"], ["--expert", "task0", "twice"]),
        (["--method", "ties", "--zoo", "demo"], ["zoo", "both"]),
        (["--meth", "ties"], ["--method"]),
        ([], ["--method"]),
    ],
)
def test_bad_options_of_merge(run: Run, models: list[str], tmp_path: Path, options: list[str], words: list[str]) -> None:
    run("merge", *models, *options, "--out", tmp_path / "out.safetensors").assert_refused(*words)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("merged.pt", [".safetensors", "merged.pt"]),
        ("no/such/folder/m.safetensors", ["existing folder", "no/such/folder"]),
        ("folder.safetensors", ["folder.safetensors", "folder"]),
        ("nul\0.safetensors", ["NUL"]),
        ("base.safetensors/m.safetensors", ["base.safetensors"]),
    ],
)
def test_bad_targets(run: Run, models: list[str], tmp_path: Path, out: str, words: list[str]) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    run("merge", *models, "--method=average", f"--out={tmp_path / out}").assert_refused(*words)


def test_sets_that_make_no_sense(run: Run, models: list[str], tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", random_factors(0))
    run("inspect").assert_refused("--zoo", "--expert")
    run("inspect", models[0]).assert_refused("--expert")
    run("inspect", *models[1:]).assert_refused("base")
    run("inspect", *models, f"--expert=lora={adapter}").assert_refused("LoRA adapters and full models")
    run("inspect", f"--base={adapter}", f"--expert=lora={adapter}").assert_refused("base", str(adapter))


@pytest.mark.parametrize(
    "command",
    [
        ["inspect"],
        ["spectra"],
        ["merge", "--method=average", "--out=out.safetensors"],
        ["evaluate", "--method=average"],
        ["compare"],
    ],
)
def test_unknown_zoo(run: Run, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(*command, "--zoo", "other").assert_refused("demo, demo-lora", "'other'")


def test_a_zoo_whose_files_are_missing(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dcmerge.cli.options.open_zoo", partial(open_zoo, data=tmp_path))
    run("inspect", "--zoo", "demo").assert_refused("model.json", "dcmerge.zoo.build")
