"""``--qkv`` and ``--dtype`` on the command line: what is merged, what is written, and what every result says of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.builders import random_deltas, random_tensors, write
from tests.cli.conftest import Run

SHAPES = {"blocks.0.attn.in_proj_weight": (24, 8), "blocks.0.attn.in_proj_bias": (24,), "blocks.0.mlp.c_fc.weight": (16, 8)}
MERGED_SPLIT = "attention's q, k and v: merged split (the files have them fused)"


@pytest.fixture
def attention(tmp_path: Path) -> list[str]:
    base = random_tensors(1, SHAPES)
    write(tmp_path / "base.safetensors", base, dtype=torch.bfloat16)
    for task, own in random_deltas(2, shapes=SHAPES).items():
        write(tmp_path / f"{task}.safetensors", {n: base[n] + 1e-3 * d for n, d in own.items()})
    return [f"--base={tmp_path / 'base.safetensors'}", *(f"--expert=t{n}={tmp_path / f'task{n}.safetensors'}" for n in (0, 1))]


def test_merge_says_how_and_what_was_lost(run: Run, attention: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    done = run("merge", *attention, "--method", "tsv_m", "--qkv", "split", "--out", out, "--json")
    assert (done.json["qkv"], done.json["qkv_stored"]) == ("split", "fused")
    assert done.json["rounding"]["dtypes"] == ["bfloat16"] and done.json["rounding"]["is_large"]
    assert set(load_file(out)) == set(SHAPES)
    told = run("merge", *attention, "--method", "tsv_m", "--qkv", "split", "--out", out, "--force").out
    assert MERGED_SPLIT in told and "warning: rounding to bfloat16" in " ".join(told.split())
    wide = run("merge", *attention, "--method", "tsv_m", "--out", out, "--force", "--dtype", "float32", "--json").json
    assert wide["rounding"] is None and wide["qkv"] == "fused"
    assert {value.dtype for value in load_file(out).values()} == {torch.float32}


def test_inspect_and_spectra_say_it(run: Run, attention: list[str]) -> None:
    assert run("inspect", *attention, "--json").json["qkv"] == "fused"
    assert MERGED_SPLIT in run("inspect", *attention, "--qkv", "split").out
    found = run("spectra", *attention, "--qkv", "split", "--json").json
    assert found["qkv"] == "split"
    assert [layer["shape"] for layer in found["layers"] if "proj" in layer["name"]] == [[8, 8]] * 3
    assert MERGED_SPLIT in run("spectra", *attention, "--qkv", "split", "--layer", "*q_proj*").out


def test_bad_requests(run: Run, attention: list[str], models: list[str], adapters: list[str], tmp_path: Path) -> None:
    out = ["--method", "average", "--out", str(tmp_path / "o.safetensors")]
    run("merge", *models, "--qkv", "split", *out).assert_refused("q, k and v, to be merged split, got files without them")
    run("merge", *adapters, "--qkv", "fused", *out).assert_refused("q, k and v together")
    run("merge", *attention, "--qkv", "both", *out).assert_refused("--qkv", "both")
    run("merge", *attention, "--dtype", "int8", *out).assert_refused("--dtype", "int8")
    run("merge", *attention, "--dtype", "float16", "--delta-only", *out).assert_refused("dtype", "delta")
    run("merge", *adapters, "--dtype", "float16", *out).assert_refused("dtype", "delta")
    assert not (tmp_path / "o.safetensors").exists()


def test_accuracies_are_labelled(run: Run, tiny_zoo: Path, tmp_path: Path) -> None:
    done = run("evaluate", "--zoo", "demo", "--method", "tsv_m", "--scale", "1", "--qkv", "split", "--json").json
    assert (done["qkv"], done["rows"][1]["qkv"], done["rows"][0]["qkv"]) == ("split", "split", None)
    assert "merged split" in run("evaluate", "--zoo", "demo", "--method", "average", "--qkv", "split").out
    assert "merged fused (as the files have them)" in run("evaluate", "--zoo", "demo", "--method", "average").out
    text = run("compare", "--zoo", "demo", "--methods", "tsv_m", "--qkv", "split", "--csv", "-").out
    assert {row["slug"]: row["q, k, v"] for row in csv.DictReader(io.StringIO(text))}["tsv_m"] == "split"
    markdown = run("compare", "--zoo", "demo", "--methods", "tsv_m", "--markdown", "-").out
    assert "| q, k, v |" in markdown and "| fused |" in markdown
    run("compare", "--zoo", "demo", "--background", "--qkv", "split").assert_refused("--background without --qkv")


def test_entrywise_methods_are_as_accurate_either_way(run: Run, tiny_zoo: Path) -> None:
    """The same weights come out, so the same images are right: the encoder gets them fused."""
    found = [
        run("evaluate", "--zoo", "demo", "--method", "task_arithmetic", "--scale", "0.5", "--qkv", qkv, "--json").json
        for qkv in ("fused", "split")
    ]
    assert found[0]["rows"][1]["accuracy"] == found[1]["rows"][1]["accuracy"]


@pytest.mark.parametrize("options", [["--qkv", "split"], ["--dtype", "float16"], ["--qkv", "split", "--dtype", "float32"], []])
def test_a_recipe_repeats_both(run: Run, attention: list[str], tmp_path: Path, options: list[str]) -> None:
    recipe, out, again = tmp_path / "r.yaml", tmp_path / "out.safetensors", tmp_path / "again.safetensors"
    assert run("merge", *attention, "--method", "tsv_m", *options, "--recipe", recipe, "--out", out).code == 0
    assert run("run", recipe, "--out", again).code == 0
    assert again.read_bytes() == out.read_bytes()
    inputs = [option.removeprefix("--expert=") for option in attention[1:]] + [f"base={attention[0].removeprefix('--base=')}"]
    third = tmp_path / "third.safetensors"
    assert run("run", out, *(f"--input={one}" for one in inputs), "--out", third).code == 0
    assert third.read_bytes() == out.read_bytes()
