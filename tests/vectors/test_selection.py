"""Ranks by magnitude found by counting, against sorting; and parts of a parameter, against the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcmerge import TaskVectors, merge
from dcmerge.vectors import compatibility
from dcmerge.vectors.layers import Layer, layer_of
from dcmerge.vectors.selection import cuts, magnitudes, magnitudes_at
from tests.builders import write


def opened(tmp_path: Path, deltas: list[Tensor]) -> TaskVectors:
    base = torch.zeros_like(deltas[0])
    experts = {f"t{place}": write(tmp_path / f"t{place}.safetensors", {"w": delta}) for place, delta in enumerate(deltas)}
    return TaskVectors.open(write(tmp_path / "base.safetensors", {"w": base}), experts)


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility.report, "PART_ENTRIES", 40)


def kept_by_sorting(delta: Tensor, count: int) -> Tensor:
    kept = torch.zeros(delta.numel(), dtype=torch.bool)
    kept[delta.abs().flatten().argsort(descending=True, stable=True)[:count]] = True
    return kept.reshape(delta.shape)


def deltas(values: str) -> list[Tensor]:
    draw = torch.Generator().manual_seed(1)
    if values == "few":  # many entries equal the one at the rank
        return [torch.randint(-3, 4, (30, 12), generator=draw).float() / 8 for _ in range(3)]
    tiny = torch.randn(30, 12, generator=draw) * 1e-41
    return [torch.randn(30, 12, generator=draw), tiny, torch.zeros(30, 12)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", ["few", "many"])
def test_counting_keeps_what_a_stable_sort_keeps(tmp_path: Path, in_small_parts: None, values: str, dtype: torch.dtype) -> None:
    made = deltas(values)
    layer = layer_of(opened(tmp_path, made), "w", dtype)
    counts = [0, 1, 7, 111, 359, 360, 500]
    found = cuts([layer], lambda count: counts)["w"]
    assert len(layer.parts()) == 10
    for task, delta in enumerate(made):
        for cut, count in zip(found[task], counts, strict=True):
            assert torch.equal(cut.kept(delta, 0), kept_by_sorting(delta, count)), (task, count)
            parts = [cut.kept(part.dense_deltas()[task], part.first) for part in layer.parts()]
            assert torch.equal(torch.cat(parts), kept_by_sorting(delta, count)), (task, count)


@pytest.mark.parametrize("place", [1, 180, 360])
def test_counting_finds_the_magnitude_of_a_rank(tmp_path: Path, in_small_parts: None, place: int) -> None:
    layer = layer_of(opened(tmp_path, deltas("many")), "w")
    wanted = [magnitudes([layer], task).sort().values[place - 1] for task in layer.tasks]
    assert torch.equal(magnitudes_at([layer], place), torch.stack(wanted))


METHODS = {
    "average": {},
    "task_arithmetic": {},
    "ties": {"trim": "parameter"},
    "breadcrumbs": {"form": "mergekit"},
    "model_stock": {"limit": False},
    "karcher": {},
}


@pytest.mark.parametrize("slug", METHODS)
def test_a_merge_in_parts_is_the_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slug: str) -> None:
    draw = torch.Generator().manual_seed(2)
    base = torch.randn(30, 12, generator=draw)
    experts = {
        task: write(tmp_path / f"{task}.safetensors", {"w": base + 0.1 * torch.randn(30, 12, generator=draw)})
        for task in "abcdef"
    }
    start = write(tmp_path / "base.safetensors", {"w": base})
    whole = merge(TaskVectors.open(start, experts), slug, **METHODS[slug])
    whole.save(tmp_path / "whole.safetensors")
    monkeypatch.setattr(compatibility.report, "PART_ENTRIES", 40)
    in_parts = merge(TaskVectors.open(start, experts), slug, **METHODS[slug])
    assert len(Layer(in_parts.vectors, in_parts.vectors.parameters["w"]).parts()) == 10
    in_parts.save(tmp_path / "parts.safetensors")
    torch.testing.assert_close(in_parts.deltas["w"], whole.deltas["w"], rtol=0, atol=1e-6)
    if slug not in ("model_stock", "karcher"):  # their products are summed in another order
        assert torch.equal(in_parts.deltas["w"], whole.deltas["w"])


def test_equal_experts_are_seen_through_parts(tmp_path: Path, in_small_parts: None) -> None:
    first, second = deltas("few")[:2]
    almost = first.clone()
    almost[-1, -1] += 1
    found = opened(tmp_path, [first, second, first, almost]).report.findings
    assert [one.task for one in found if one.what == "identical"] == ["t2"]
