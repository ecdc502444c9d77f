"""Jobs run by real runners and workers, some of which are killed."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dcmerge import jobs, load_plugin
from dcmerge.merging.merge import merge_to_file
from dcmerge.merging.recipe import Recipe
from dcmerge.sets.model_sets import ROOTS_VARIABLE, open_set_by_name, roots
from dcmerge.sets.saved_sets import SavedSet, save_set
from dcmerge.studies.comparison import compare
from tests.builders import full_set, random_deltas, random_tensors
from tests.jobs.conftest import wait_for_end, wait_until
from tests.own_models import TASKS, own_models
from tests.plugins import GOOD, write_plugin

QUICK = {"limit": 2, "val_limit": 2}


def _names(job: jobs.Job) -> Counter[str]:
    """How often each step was finished."""
    return Counter(event["name"] for event in job.journal.events("step"))


def _worker(job: jobs.Job) -> int:
    return job.journal.events("worker")[-1]["pid"]


def test_after_a_kill_each_method_has_run_once_and_a_failed_one_leaves_the_others() -> None:
    methods = ["knots", "task_arithmetic", "ties", "breadcrumbs"]  # KnOTS needs LoRA experts, which the demo has not
    job = jobs.submit({"kind": "compare", "set": "demo", "methods": methods, **QUICK})
    wait_until(lambda: "task_arithmetic" in job.steps(), "a method is finished")
    os.kill(_worker(job), signal.SIGKILL)
    wait_for_end(job)
    assert job.state is jobs.State.INTERRUPTED and job.error
    before = job.comparison()
    assert before.row("average").evaluation and job.progress.share > 0
    jobs.resume(job.id)
    wait_for_end(job)
    assert job.state is jobs.State.DONE, job.log_tail()
    assert {name: count for name, count in _names(job).items() if name != "knots"} == dict.fromkeys(
        ["zero-shot", "average", "task_arithmetic-0.3", "task_arithmetic", "ties", "breadcrumbs", "experts"], 1
    )
    found = job.comparison()
    assert [row.name for row in found.rows] == [
        *("zero-shot", "average", "task_arithmetic-0.3", "task_arithmetic"),  # first what the others are compared to
        *("knots", "ties", "breadcrumbs", "experts"),
    ]
    assert "LoRA" in found.row("knots").error and found.row("knots").evaluation is None
    assert all(row.evaluation for row in found.rows if row.name != "knots")
    assert found.row("ties").difference is not None and found.row("average").to_dict() == before.row("average").to_dict()
    assert any("TIES" in line for line in job.log_tail()) and job.progress == jobs.Progress(1.0)


def test_a_cancelled_merge_leaves_no_file_and_can_be_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    job = jobs.submit(
        {"kind": "merge", "set": "demo", "method": "task_arithmetic", "out": str(out / "m.safetensors"), "val_limit": 2}
    )
    wait_until(lambda: job.progress.share > 0, "the merge is under way")
    jobs.cancel(job.id)
    wait_for_end(job)
    assert job.state is jobs.State.CANCELLED and not list(out.iterdir())
    assert not list((job.folder / "steps").glob(".*"))
    jobs.resume(job.id)
    wait_for_end(job)
    assert job.state is jobs.State.DONE, job.log_tail()
    assert [path.name for path in out.iterdir()] == ["m.safetensors"] and "α" in " ".join(job.log_tail())
    assert list(job.steps()) == ["target", "scale", "file", "verified"] and job.steps()["scale"]["curve"]


@pytest.mark.usefixtures("own_register")
def test_a_worker_loads_the_plugin_again_and_refuses_another_content(small_set: str, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path)
    load_plugin(plugin)
    merge = {"kind": "merge", "set": small_set, "method": "mine", "scale": 1.0}
    job = wait_for_end(jobs.submit({**merge, "out": str(tmp_path / "out.safetensors")}))
    assert job.state is jobs.State.DONE, job.log_tail()
    assert [path for path, _ in job.plugins] == [str(plugin)] and (tmp_path / "out.safetensors").is_file()
    plugin.write_text(f"{GOOD}\nraise SystemExit('it ran')\n")
    job = wait_for_end(jobs.submit({**merge, "out": str(tmp_path / "other.safetensors")}))
    assert job.state is jobs.State.FAILED and "plugin: expected mine.py with sha256" in job.error
    assert not (tmp_path / "other.safetensors").exists()


def test_one_queue_for_all_who_submit(small_set: str, tmp_path: Path) -> None:
    """Several submit at the same time; nothing is run twice, nothing at the same time, nothing is forgotten."""
    submitted: list[jobs.Job] = []

    def submit(number: int) -> None:
        out = str(tmp_path / f"{number}.safetensors")
        submitted.append(jobs.submit({"kind": "merge", "set": small_set, "method": "ties", "out": out, "scale": 0.5}))

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(5):
        jobs.ensure_runner()
    spans = []
    for job in submitted:
        wait_for_end(job)
        assert job.state is jobs.State.DONE, job.log_tail()
        assert len(job.journal.events("worker")) == 1 and set(_names(job).values()) == {1}
        times = {event["state"]: event["time"] for event in job.journal.events("state")}
        spans.append((times["running"], times["done"]))
    spans.sort()
    assert all(earlier[1] <= later[0] for earlier, later in zip(spans, spans[1:], strict=False))
    models = open_set_by_name(small_set, roots())
    merge_to_file(models.vectors, "ties", tmp_path / "same.safetensors", scale=0.5)
    same, made = load_file(tmp_path / "same.safetensors"), load_file(tmp_path / "0.safetensors")
    assert all(value.equal(made[name]) for name, value in same.items())


def test_every_option_of_a_merge_and_what_was_read_again(tmp_path: Path) -> None:
    """Files instead of a set, a folder in another dtype, weights of experts, a recipe; verified after it was written."""
    base = random_tensors(9, scale=3.0)
    full_set(tmp_path, random_deltas(2), base)
    experts = {task: str(tmp_path / f"{task}.safetensors") for task in ("task0", "task1")}
    job = jobs.submit(
        {
            "kind": "merge",
            "set": "mine",
            "models": {"base": str(tmp_path / "base.safetensors"), "experts": experts, "fit": {"without": ["*bias*"]}},
            "method": "average",
            "out": str(tmp_path / "out"),
            "scale": 0.5,
            "dtype": "bfloat16",
            "mix": {"weights": {"task0": 2.0}},
            "recipe": str(tmp_path / "recipe.yaml"),
        }
    )
    wait_for_end(job)
    assert job.state is jobs.State.DONE, job.log_tail()
    recipe = Recipe.open(tmp_path / "recipe.yaml")
    assert recipe.mix.to_data() == {"weights": {"task0": 2.0}} and recipe.fit == {"without": ["*bias*"]}
    assert {value.dtype for value in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    verified = job.steps()["verified"]
    assert verified["sound"] and {"numbers", "recipe", "size"} <= {check["what"] for check in verified["checks"]}


def test_a_target_that_appeared_meanwhile_is_not_replaced(small_set: str, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    job = jobs.submit({"kind": "merge", "set": small_set, "method": "ties", "out": str(out)})
    out.write_bytes(b"precious")
    wait_for_end(job)
    assert job.state is jobs.State.FAILED and "exists already" in job.error
    assert out.read_bytes() == b"precious"
    out.unlink()
    jobs.resume(job.id)
    assert wait_for_end(job).state is jobs.State.DONE and out.stat().st_size > 0


def test_a_worker_whose_runner_died_is_seen_to_its_end() -> None:
    """The next runner waits for it, and a cancel reaches it."""
    job = jobs.submit({"kind": "compare", "set": "demo", "methods": ["ties"], **QUICK})
    wait_until(lambda: job.journal.events("worker"), "the worker is there")
    with open(f"/proc/{_worker(job)}/stat") as file:
        runner = int(file.read().rpartition(")")[2].split()[1])
    os.kill(runner, signal.SIGKILL)
    assert job.state is jobs.State.RUNNING
    jobs.cancel(job.id)
    wait_for_end(job)
    assert job.state is jobs.State.CANCELLED
    jobs.resume(job.id)
    assert job.state in jobs.ACTIVE


def test_a_remembered_set_of_ones_own_is_compared_on_its_own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMERGE_SETS", str(tmp_path / "sets"))
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    own_models(tmp_path)
    experts = {task: str(tmp_path / f"{task}.safetensors") for task in TASKS}
    bench = {"encoder": str(tmp_path / "tiny.json"), "data": str(tmp_path / "data")}
    save_set(SavedSet("mine", str(tmp_path / "base.safetensors"), experts, bench=bench))
    job = wait_for_end(jobs.submit({"kind": "compare", "set": "saved:mine", "methods": ["ties"], **QUICK}))
    assert job.state is jobs.State.DONE, job.log_tail()
    wanted = compare(open_set_by_name("saved:mine", roots()).bench, ["ties"], **QUICK)
    for row in wanted.rows:
        assert job.comparison().row(row.name).evaluation.to_dict() == row.evaluation.to_dict()
    assert "seed 0" in job.comparison().row("ties").evaluation.split_rules["tints"]
