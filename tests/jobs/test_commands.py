"""The command of a job, given again with the job's own words, makes the very same job."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from dcmerge import jobs
from dcmerge.cli import main
from dcmerge.jobs.commands import command, repeated
from dcmerge.sets.saved_sets import SavedSet, forget_set, save_set

pytestmark = pytest.mark.usefixtures("no_runner")

MIX = {"weights": {"letters": 1.5}, "depths": {"clothes": [0.5, 1.0]}, "depth": [1.0, 0.5]}
SPECIFICATIONS: dict[str, dict[str, Any]] = {
    "compare": {
        "kind": "compare",
        "methods": ["ties", {"slug": "ties", "parameters": {"density": 0.123456789}}, "tsv_m"],
        "limit": 8,
        "val_limit": 4,
        "diagnosed": True,
        "mix": MIX,
    },
    "evaluate": {
        "kind": "evaluate",
        "method": "dc_merge",
        "parameters": {"smoothing": "linear", "rho": 3.0},
        "scale": 0.35,
        "split": "val",
        "limit": 8,
        "val_limit": 8,
        "mix": MIX,
    },
    "sweep": {
        "kind": "sweep",
        "plan": {
            "slug": "dc_merge",
            "over": ["rho=1:20:log", "weight.letters=0.5,2"],
            "parameters": {"smoothing": "linear"},
            "sampler": "tpe",
            "trials": 7,
            "objectives": ("worst", "mean"),
            "limit": 20,
            "early": False,
            "test": False,
            "seed": 3,
        },
    },
    "damage": {
        "kind": "damage",
        "plan": {"slug": "ties", "parameters": {"density": 0.3}, "changes": ["base"], "by": "blocks", "limit": 7},
        "scale": 0.7,
    },
    "tells": {
        "kind": "tells",
        "plan": {"merges": 9, "methods": ["ties", "average"], "factors": [0.25, 1], "limit": 5, "subsets": True, "seed": 2},
    },
}


@pytest.mark.parametrize("kind", SPECIFICATIONS)
def test_the_command_makes_the_same_job(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = jobs.submit({"set": "demo", **SPECIFICATIONS[kind]})
    (text,) = repeated(job).values()
    assert text == command(job)
    assert main([*shlex.split(text.replace("\\\n", ""))[3:], "--background"]) == 0
    again = jobs.job(capsys.readouterr().out.strip())
    assert again.id != job.id and again.specification == job.specification


def test_all_validation_images_are_asked_for_where_test_images_are_limited() -> None:
    job = jobs.submit({"set": "demo", "kind": "compare", "methods": ["ties"], "limit": 8})
    assert "--limit 8 \\\n  --val-limit 1000000000" in command(job)


def test_a_remembered_set_is_told_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCMERGE_SETS", str(tmp_path / "sets"))
    bench = {"encoder": "ViT-B-32", "data": "/data", "datasets": {"cats": "oxford pets"}}
    save_set(SavedSet("mine", "/m/base.safetensors", {"cats": "/m/a b.pt"}, bench=bench, fit={"only": ["visual.*"]}))
    job = jobs.submit({"set": "saved:mine", **SPECIFICATIONS["damage"]})
    ((title, text),) = repeated(job).items()
    assert "the machine that measured" in title
    words = shlex.split(text.replace("\\\n", ""))
    for option, value in (
        ("--base", "/m/base.safetensors"),
        ("--expert", "cats=/m/a b.pt"),
        ("--only", "visual.*"),
        ("--encoder", "ViT-B-32"),
        ("--dataset", "cats=oxford pets"),
    ):
        assert words[words.index(option) + 1] == value
    forget_set("mine")
    ((title, text),) = repeated(job).items()
    assert title.startswith("Python") and "jobs.submit(" in text and "'saved:mine'" in text
