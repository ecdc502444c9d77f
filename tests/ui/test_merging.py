"""Live looks at one set from several threads, as Streamlit runs a page again before its last run has ended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dcmerge import merge
from dcmerge.evaluation import Bench, ImageEncoder, Scale, Split, Task
from dcmerge.evaluation.precision import VARIABLE
from dcmerge.methods import method
from dcmerge.runs import RunStore
from dcmerge.sets.model_sets import ModelSet
from dcmerge.ui import live, pinning
from dcmerge.ui.merging import quick_look
from tests.builders import full_set, random_tensors

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
}
SCALES = [0.1 * step for step in range(1, 25)]


@pytest.fixture
def models(tmp_path: Path) -> ModelSet:
    encoder = ImageEncoder(CONFIG, batch_size=10)
    deltas = {f"task{seed}": random_tensors(seed, encoder.shapes, scale=0.3) for seed in (1, 2)}
    tasks = {}
    for seed, name in enumerate(deltas):
        draw = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (60, 3, 16, 16), generator=draw, dtype=torch.uint8)
        split = Split(images, torch.randint(0, 4, (60,), generator=draw))
        head = torch.nn.functional.normalize(torch.randn(4, 8, generator=draw), dim=-1)
        tasks[name] = Task(name, name, ("a", "b", "c", "d"), head, {"val": split, "test": split})
    vectors = full_set(tmp_path, deltas, random_tensors(0, encoder.shapes, scale=0.5))
    return ModelSet(tmp_path.name, "tiny", vectors, Bench(encoder, tasks, vectors))


def test_looks_at_the_same_time_do_not_mix_their_weights(models: ModelSet) -> None:
    merged = merge(models.vectors, "average").deltas
    alone = replace(models.bench, encoder=ImageEncoder(CONFIG, batch_size=10))
    wanted = [alone.evaluate(alone.merged_weights(merged, scale), "average", split="val") for scale in SCALES]
    with ThreadPoolExecutor(4) as threads:
        looks = list(threads.map(lambda scale: quick_look(models, "average", {}, scale, 60), SCALES))
    for look, evaluation in zip(looks, wanted, strict=True):
        for task, measured in evaluation.tasks.items():
            assert torch.equal(look.merged.tasks[task].hits, measured.hits)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_look_says_its_arithmetic_and_keeps_its_references_exact(
    models: ModelSet, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(VARIABLE, name)
    look, bench = quick_look(models, "average", {}, 0.7, 60), models.images
    wanted = bench.evaluate(
        merge(models.vectors, "average").model(bench, 0.7), "average", split="val", dtype=look.precision.dtype
    )
    assert str(look.precision.dtype) == f"torch.{name}" and look.precision.is_exact == (name == "float32")
    for task in bench.tasks:
        assert torch.equal(look.merged.tasks[task].hits, wanted.tasks[task].hits)
    assert look.zero_shot is bench.zero_shot(split="val", limit=60) and look.experts is bench.experts(split="val", limit=60)


def test_a_look_in_bfloat16_is_kept_only_where_it_is_pinned_and_then_in_float32(
    models: ModelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv(VARIABLE, "bfloat16")
    look = quick_look(models, "average", {}, 0.31, 60)
    page: Any = SimpleNamespace(models=models)
    choice: Any = SimpleNamespace(method=method("average"), parameters={}, scale=Scale(0.31, "given"))
    assert "bfloat16" in live._arithmetic(look)
    run = pinning.kept_look(page, choice, look)
    assert run is not None and not run.id and not RunStore().find()
    pinning._pin(page, choice, run)
    pinned, bench = RunStore().pinned(run.set), models.images
    wanted = bench.evaluate(merge(models.vectors, "average").model(bench, 0.31), "average", split="val", limit=60)
    assert pinned is not None and pinned.alpha == 0.31
    for task, row in wanted.tasks.items():
        assert torch.equal(pinned.evaluation.tasks[task].hits, row.hits)
