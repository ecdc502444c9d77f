"""Real small checkpoints merged through the command line and read back with safetensors itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import dcmerge
from dcmerge.checkpoints import dense
from dcmerge.merging.recipe import METADATA_KEY
from dcmerge.methods import methods
from tests.builders import random_factors, random_tensors, relative_error, write
from tests.cli.conftest import TASKS, Run


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def vectors(folder: Path) -> dcmerge.TaskVectors:
    return dcmerge.TaskVectors.open(folder / "base.safetensors", {t: folder / f"{t}.safetensors" for t in TASKS})


@pytest.mark.parametrize("slug", [slug for slug, method in methods().items() if method.needs == ("weights",)])
def test_every_method_writes_what_the_library_computes(run: Run, models: list[str], tmp_path: Path, slug: str) -> None:
    out = tmp_path / "merged.safetensors"
    done = run("merge", *models, "--method", slug, "--scale", "0.7", "--out", out)
    assert (done.code, done.err) == (0, "")
    base, written = load_file(tmp_path / "base.safetensors"), load_file(out)
    deltas = dcmerge.merge(vectors(tmp_path), slug).deltas
    assert written.keys() == base.keys() and torch.equal(written["steps"], base["steps"])
    for name, delta in deltas.items():
        assert relative_error(written[name], base[name] + 0.7 * dense(delta)) < 1e-6


def test_parameters_scale_and_inputs_are_in_the_recipe(run: Run, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    settings = ["--set", "smoothing=linear", "--set", "rho=2.5", "--set=elect=off", "--set=rank=2"]
    done = run("merge", *models, "--method", "dc_merge", *settings, "--scale=0.5", "--out", out, "--json")
    recipe = json.loads(metadata(out)[METADATA_KEY])
    expected = {"smoothing": "linear", "rho": 2.5, "elect": False, "rank": 2, "keep": None, "block_mask": True}
    assert recipe["parameters"] == expected == done.json["parameters"]
    assert (recipe["method"], recipe["scale"], recipe["scale_origin"]) == ("dc_merge", 0.5, "given")
    base_hash = hashlib.sha256((tmp_path / "base.safetensors").read_bytes()).hexdigest()
    assert recipe["inputs"]["base"]["sha256"] == base_hash


def test_the_report_names_file_size_hash_and_seconds(run: Run, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    done = run("merge", *models, "--method", "task_arithmetic", "--out", out, "--json").json
    assert done["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest() and done["bytes"] == out.stat().st_size
    assert (done["scale"], done["scale_origin"]) == (0.5, "the method's usual α")
    assert (done["content"], done["kind"], done["tasks"]) == ("model", "full", list(TASKS)) and done["seconds"] > 0
    text = run("merge", *models, "--method", "task_arithmetic", "--out", out, "--force").out
    assert str(out) in text and done["sha256"] in text and "α = 0.5" in text


def test_the_delta_alone(run: Run, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "delta.safetensors"
    assert run("merge", *models, "--method", "average", "--scale", "2", "--delta-only", "--out", out).code == 0
    deltas = dcmerge.merge(vectors(tmp_path), "average").deltas
    written = load_file(out)
    assert written.keys() == deltas.keys() and metadata(out)["content"] == "delta"
    for name, delta in deltas.items():
        assert relative_error(written[name], 2 * delta) < 1e-6 and written[name].dtype == torch.float32


def test_adapters_without_a_base_give_the_delta(run: Run, adapters: list[str], tmp_path: Path) -> None:
    out = tmp_path / "delta.safetensors"
    done = run("merge", *adapters, "--method", "average", "--out", out, "--json").json
    assert (done["content"], done["kind"]) == ("delta", "lora")
    written = load_file(out)
    factors = [random_factors(seed) for seed in range(2)]
    for name in factors[0]:
        mean = sum(B @ A for B, A in (own[name] for own in factors)) / 2
        assert relative_error(written[name], mean) < 1e-6


def test_adapters_with_a_base_give_the_model(run: Run, adapters: list[str], tmp_path: Path) -> None:
    shapes = {name: (B.shape[0], A.shape[1]) for name, (B, A) in random_factors(0).items()}
    base = random_tensors(5, {**shapes, "head.bias": (3,)})
    write(tmp_path / "base.safetensors", base, dtype=torch.bfloat16)
    out = tmp_path / "merged.safetensors"
    code = run("merge", "--base", tmp_path / "base.safetensors", *adapters, "--method=dc_merge", "--out", out).code
    written = load_file(out)
    assert code == 0 and written.keys() == base.keys()
    assert {value.dtype for value in written.values()} == {torch.bfloat16}
    assert torch.equal(written["head.bias"], base["head.bias"].bfloat16())
    assert not torch.equal(written["mlp.fc1.weight"], base["mlp.fc1.weight"].bfloat16())


def test_an_existing_file_stays_unless_forced(run: Run, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    out.write_bytes(b"precious")
    command = ["merge", *models, "--method", "average", "--out", out]
    run(*command).assert_refused("exists already", "--force", str(out))
    assert out.read_bytes() == b"precious"
    assert run(*command, "--force").code == 0 and load_file(out)


def test_an_input_is_never_replaced(run: Run, models: list[str], tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(tmp_path / "task1.safetensors")
    before = (tmp_path / "task1.safetensors").read_bytes()
    for out in (tmp_path / "task1.safetensors", link):
        run("merge", *models, "--method=average", "--force", "--out", out).assert_refused("another file", out.name)
    assert (tmp_path / "task1.safetensors").read_bytes() == before


def test_a_failed_merge_leaves_nothing_behind(
    run: Run, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("dcmerge.merging.output.models._rest", interrupted)
    assert run("merge", *models, "--method=average", "--out", tmp_path / "merged.safetensors").code == 130
    assert sorted(tmp_path.iterdir()) == before


def test_a_tolerance_allows_a_randomised_svd_and_is_checked(run: Run, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    run("merge", *models, "--method=tsv_m", "--tolerance=0.5", "--out", out).assert_refused("tolerance", "[0, 0.1]", "0.5")
    assert run("merge", *models, "--method=tsv_m", "--tolerance=1e-3", "--out", out).code == 0 and out.exists()


def test_a_method_with_a_model_for_each_task_writes_the_one_that_is_named(run: Run, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "merged.safetensors"
    run("merge", *models, "--method", "emr", "--out", out).assert_refused("expected one of task0, task1, task2")
    run("merge", *models, "--method", "average", "--task", "task0", "--out", out).assert_refused("expected no task")
    assert not out.exists()
    assert run("merge", *models, "--method", "emr", "--task", "task1", "--out", out).code == 0
    dcmerge.merge(vectors(tmp_path), "emr").save(tmp_path / "library.safetensors", task="task1")
    written, wanted = load_file(out), load_file(tmp_path / "library.safetensors")
    assert written.keys() == wanted.keys() and all(torch.equal(written[name], wanted[name]) for name in wanted)


def test_methods_that_look_at_images_are_refused_without_any(run: Run, models: list[str], tmp_path: Path) -> None:
    done = run("merge", *models, "--method", "lot", "--out", tmp_path / "merged.safetensors")
    done.assert_refused("lot needs unlabeled images of the tasks, got a set without images")
