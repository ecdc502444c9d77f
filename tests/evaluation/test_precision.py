"""In which arithmetic looks run: what decides it, and how near bfloat16 is to float32 in a tower."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcmerge import InputError
from dcmerge.evaluation import precision
from dcmerge.studies.small_sets import tiny_bench


def test_the_measurement_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(precision.VARIABLE, raising=False)
    for speed, dtype in ((4.0, torch.bfloat16), (1.5, torch.bfloat16), (1.4, torch.float32), (0.1, torch.float32)):
        monkeypatch.setattr(precision, "measured_speed", lambda speed=speed: speed)
        assert precision.look_precision() == precision.LookPrecision(dtype, speed)
    assert precision.chosen(4.0).pace == 4.0 and precision.chosen(1.2).pace == 1.0
    assert precision.chosen(1.2).is_exact and not precision.chosen(4.0).is_exact


def test_the_user_decides_where_he_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        monkeypatch.setenv(precision.VARIABLE, name)
        assert precision.look_precision().dtype == dtype
    monkeypatch.setenv(precision.VARIABLE, "half")
    with pytest.raises(InputError, match="DCMERGE_LOOKS: expected float32 or bfloat16, got 'half'"):
        precision.look_precision()


def test_this_processor_can_be_measured() -> None:
    assert 0 < precision.measured_speed() < 1000


def test_bfloat16_is_near_and_leaves_what_is_kept_in_float32(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path)
    weights = bench.expert_weights(next(iter(bench.tasks)))
    exact, near = (bench.features(weights, split="test", dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    for task, features in near.items():
        assert features.dtype == torch.float32 and not torch.equal(features, exact[task])
        assert (features * exact[task]).sum(dim=1).min() > 0.99
    bench.evaluate(weights, "a look", split="test", dtype=torch.bfloat16)
    for task, row in bench.zero_shot(split="test").tasks.items():
        images = bench.split(task, "test", None)
        found = bench.encoder.encode(bench.base_weights(), images.images) @ bench.tasks[task].head.T
        assert torch.equal(row.hits, found.argmax(dim=1) == images.labels)
