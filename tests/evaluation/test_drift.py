"""Feature drift on a tiny real encoder with two blocks, where a shifted bias moves the residual stream by just that much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import Cancelled
from dcmerge.evaluation import Bench, Drift, ImageEncoder, Model, Split, Task, TaskModule, feature_drift
from tests.builders import full_set, random_tensors

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1},
}
BIAS = "visual.transformer.resblocks.0.mlp.c_proj.bias"
SHIFTS = {"birds": 0.5, "cars": -0.25}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Experts whose only change is the first block's last bias: every entry of its output moves by the task's shift."""
    encoder = ImageEncoder(CONFIG, batch_size=3)
    base = random_tensors(0, encoder.shapes, scale=0.3)
    deltas = {
        task: {n: torch.full_like(v, shift) if n == BIAS else torch.zeros_like(v) for n, v in base.items()}
        for task, shift in SHIFTS.items()
    }
    vectors = full_set(tmp_path_factory.mktemp("drift"), deltas, base)
    return Bench(encoder, {task: _task(seed, task) for seed, task in enumerate(SHIFTS)}, vectors)


def _task(seed: int, name: str) -> Task:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (7, 3, 16, 16), generator=draw, dtype=torch.uint8)
    split = Split(images, torch.zeros(7, dtype=torch.int64))
    return Task(name, name, ("a",), torch.ones(1, 8), {"val": split, "test": split})


def test_features_by_block_end_with_what_encode_returns(bench: Bench) -> None:
    images = bench.tasks["birds"].splits["test"].images
    first, second, features = bench.encoder.block_features(bench.base_weights(), images)
    assert first.shape == second.shape == (7, 5, 16)
    torch.testing.assert_close(features, bench.encoder.encode(bench.base_weights(), images))
    assert not any(block._forward_hooks for block in bench.encoder.visual.transformer.resblocks)


def test_the_base_drifts_by_the_square_of_the_shift(bench: Bench) -> None:
    found = feature_drift(bench, bench.base_weights())
    assert found.places == ("block 1", "block 2", "features") and found.tasks == tuple(SHIFTS)
    for row, shift in zip(found.merged, SHIFTS.values(), strict=True):
        assert row[0] == pytest.approx(shift**2, rel=1e-4) and row[1] > 0 and row[2] > 0
    assert found.mean[0] == pytest.approx((0.5**2 + 0.25**2) / 2, rel=1e-4)
    assert found.relative == pytest.approx((1.0, 1.0, 1.0))


def test_an_expert_does_not_drift_on_its_own_images(bench: Bench) -> None:
    found = feature_drift(bench, bench.expert_weights("birds"))
    assert found.merged[0] == (0.0, 0.0, 0.0)
    assert found.merged[1][0] == pytest.approx((0.5 + 0.25) ** 2, rel=1e-4)
    assert found.relative[0] == pytest.approx((0 + 0.75**2 / 0.25**2) / 2, rel=1e-4)


def test_the_experts_features_are_computed_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    feature_drift(bench, bench.base_weights())
    runs: list[Tensor] = []
    real = ImageEncoder.block_features
    monkeypatch.setattr(ImageEncoder, "block_features", lambda *a, **k: runs.append(a[2]) or real(*a, **k))
    feature_drift(bench, bench.base_weights())
    assert len(runs) == len(SHIFTS)


def test_the_tasks_own_parts_count(bench: Bench) -> None:
    """An edit that adds the shift behind the first block, and with it is the expert."""
    block = "transformer.resblocks.0"
    modules = {task: TaskModule(edits={block: lambda x, shift=shift: x + shift}) for task, shift in SHIFTS.items()}
    found = feature_drift(bench, Model(bench.base_weights(), modules))
    assert all(value < 1e-9 for row in found.merged for value in row)
    halved = {task: TaskModule(repair=lambda x: x / 2) for task in SHIFTS}
    same = feature_drift(bench, Model(bench.base_weights(), halved))
    assert same.relative == pytest.approx((1.0, 1.0, 1.0))  # the length of an embedding does not matter


def test_another_architecture_has_no_drift(bench: Bench) -> None:
    assert feature_drift(bench, Model(bench.base_weights(), encoder=bench.encoder)) is None


def test_where_every_expert_is_the_base_there_is_no_ratio() -> None:
    drift = Drift(("a", "b"), ("block 1", "features"), ((0.0, 1.0), (0.0, 6.0)), ((0.0, 2.0), (0.0, 3.0)), 4)
    assert drift.relative == (None, pytest.approx((1 / 2 + 6 / 3) / 2)) and drift.mean == (0.0, 3.5)
    assert json.loads(json.dumps(drift.to_dict()))["relative"] == [None, 1.25]


def test_it_can_be_cancelled(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        feature_drift(bench, bench.base_weights(), cancelled=lambda: True)
