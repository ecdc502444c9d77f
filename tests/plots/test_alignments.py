"""Figures of the cover basis: titled, axes named, the right numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dcmerge.plots import aligned_delta_map, block_energy_map, consistency_lines, overlap_map
from dcmerge.plots.alignments import MAX_CELLS
from dcmerge.studies.inspection import MEASURES, Consistency, LayerAlignment, layer_alignment
from dcmerge.vectors.layers import layer_of
from tests.builders import layer_set, random_matrices

TITLES = ["Birds", "Cars", "Digits"]


@pytest.fixture
def alignment(tmp_path: Path) -> LayerAlignment:
    return layer_alignment(layer_of(layer_set(tmp_path, random_matrices(3, 12, 9)), "weight"), keep=0.1)


@pytest.mark.parametrize(("side", "word"), [("U", "output"), ("V", "input")])
@pytest.mark.parametrize("stage", ["before", "after"])
def test_overlap_before_and_after(alignment: LayerAlignment, side: str, word: str, stage: str) -> None:
    figure = overlap_map(alignment, side, stage, TITLES)
    (heat,) = figure.data
    assert [list(row) for row in heat.z] == getattr(alignment, f"{stage}_{side}").tolist()
    assert list(heat.x) == list(heat.y) == TITLES and (heat.zmin, heat.zmax) == (0, 1)
    assert word in figure.layout.title.text and stage in figure.layout.title.text


def test_aligned_delta_with_its_kept_entries(alignment: LayerAlignment) -> None:
    figure = aligned_delta_map(alignment, 1, "Cars", TITLES)
    heat, kept = figure.data
    wanted = alignment.stages.aligned[1].abs().log10()
    assert torch.allclose(torch.tensor(heat.z), wanted, atol=6e-3)
    marked = {(int(row), int(column)) for row, column in zip(kept.y, kept.x, strict=True)}
    assert marked == {tuple(entry) for entry in alignment.stages.kept[1].nonzero().tolist()}
    assert f"{len(marked)} of 81" in kept.name
    assert "Cars" in figure.layout.title.text
    assert list(figure.layout.xaxis.ticktext) == TITLES and list(figure.layout.xaxis.tickvals) == [1.0, 4.0, 7.0]
    borders = sorted({shape.x0 for shape in figure.layout.shapes if shape.x0 == shape.x1})
    assert borders == [2.5, 5.5]
    assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text


def test_a_large_aligned_delta_is_drawn_as_maxima(tmp_path: Path) -> None:
    size = MAX_CELLS + 8
    generator = torch.Generator().manual_seed(0)
    deltas = [torch.randn(size, size, generator=generator) for _ in range(2)]
    alignment = layer_alignment(layer_of(layer_set(tmp_path, deltas), "weight"))
    figure = aligned_delta_map(alignment, 0, "Birds", TITLES[:2])
    heat = figure.data[0]
    assert len(heat.z) <= MAX_CELLS and "largest of 2 x 2" in figure.layout.title.text
    block = alignment.stages.aligned[0, :2, :2].abs().max().log10().item()
    assert heat.z[0][0] == pytest.approx(block, abs=6e-3) and heat.x[0] == 0.5


def test_block_energy_adds_up_to_100_percent(alignment: LayerAlignment) -> None:
    figure = block_energy_map(alignment, TITLES)
    (heat,) = figure.data
    assert list(heat.y) == TITLES and list(heat.x)[:3] == ["block Birds", "block Cars", "block Digits"]
    for t, row in enumerate(heat.z):
        assert sum(row) == pytest.approx(100)
        assert row[t] == pytest.approx(100 * alignment.own_block_share[t])
    assert figure.layout.title.text and figure.layout.xaxis.title.text and figure.layout.yaxis.title.text == "task"


def test_consistency_is_a_mean_with_the_range_of_the_experts() -> None:
    layers = ("blocks.0.mlp.c_fc.weight", "blocks.1.mlp.c_fc.weight")
    table = torch.tensor([[0.2, 0.4], [0.6, 0.8]])
    results = {name: Consistency(layers, dict.fromkeys(MEASURES, table)) for name in ("TIES", "Iso-C")}
    figure = consistency_lines(results, "DirSim")
    low, high, line = figure.data[:3]
    assert list(line.y) == pytest.approx([0.4, 0.6]) and line.name == "TIES"
    assert list(line.x) == ["MLP in, block 0", "MLP in, block 1"]
    assert list(low.y) == pytest.approx([0.2, 0.4]) and list(high.y) == pytest.approx([0.6, 0.8])
    assert high.fill == "tonexty" and (low.name, high.name) == ("TIES, lowest expert", "TIES, highest expert")
    assert "DirSim" in figure.layout.title.text and figure.layout.yaxis.title.text == "DirSim"
    assert figure.data[5].line.color != line.line.color
