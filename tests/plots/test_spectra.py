"""Figures of spectra: titled, axes named, the right numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dcmerge.plots import concentration_map, cumulative_lines, layer_overview, spectrum_facets
from dcmerge.studies.inspection import Concentration
from tests.plots.builders import TITLES, layer_spectra

LAYERS = (
    "visual.positional_embedding",
    "visual.transformer.resblocks.0.mlp.c_fc.weight",
    "visual.transformer.resblocks.10.mlp.c_fc.weight",
    "visual.transformer.resblocks.2.mlp.c_fc.weight",
)
SHARE = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.5, 0.6]])
CONCENTRATION = Concentration(tuple(TITLES), LAYERS, SHARE)


def test_facets_show_three_spectra_a_task() -> None:
    figure = spectrum_facets(layer_spectra(), TITLES)
    by_name = {}
    for trace in figure.data:
        by_name.setdefault(trace.name, []).append(trace)
    assert list(by_name) == ["raw", "smoothed (average)", "aligned, kept and masked"]
    birds, cars = by_name["raw"]
    assert list(birds.x) == [1, 2, 3, 4] and list(birds.y) == [4.0, 2.0, 1.0, None]  # no zero on a logarithmic axis
    assert list(cars.y) == [3.0, 3.0, 2.0, 1.0]
    assert list(by_name["smoothed (average)"][0].y) == [3.0, 3.0]
    assert list(by_name["aligned, kept and masked"][1].y) == [1.5, 1.5]
    assert [trace.showlegend for trace in figure.data] == [True] * 3 + [False] * 3
    written = {note.text for note in figure.layout.annotations}
    assert {"Birds", "Cars"} <= written
    assert any("component" in text for text in written) and any("log scale" in text for text in written)
    assert "mlp.c_fc" in figure.layout.title.text
    assert {shape.x0 for shape in figure.layout.shapes} == {2}  # where the kept part ends
    assert figure.layout.yaxis.type == "log"


@pytest.mark.parametrize(("power", "unit", "raw"), [(1, "s", [66.67, 100.0]), (2, "s²", [80.0, 100.0])])
def test_cumulative_energy_of_what_is_kept(power: int, unit: str, raw: list[float]) -> None:
    figure = cumulative_lines(layer_spectra(), TITLES, power)
    dotted, solid = figure.data[:2]
    assert dotted.line.dash == "dot" and list(dotted.y) == pytest.approx(raw)
    assert solid.line.dash == "solid" and list(solid.y) == pytest.approx([50.0, 100.0])
    assert [trace.name for trace in figure.data if trace.showlegend] == ["Birds", "Cars"]
    assert f"(sum of {unit})" in figure.layout.title.text and "2 kept components" in figure.layout.title.text
    assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text == f"share of the sum of {unit}"


def test_concentration_has_a_row_a_task_and_a_column_a_matrix() -> None:
    figure = concentration_map(CONCENTRATION, TITLES)
    (heat,) = figure.data
    assert list(heat.y) == ["Birds", "Cars"]
    assert list(heat.x)[1] == "MLP in, block 0" and len(heat.x) == 4
    assert torch.allclose(torch.tensor(heat.z), 100 * SHARE)
    assert "top 5 %" in figure.layout.title.text
    assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text == "task"
    assert heat.colorbar.title.text and "%%" not in heat.hovertemplate


def test_overview_is_a_grid_of_depth_and_kind() -> None:
    figure = layer_overview(CONCENTRATION, LAYERS[2])
    (dots,) = figure.data
    assert list(dots.x) == ["–", "0", "10", "2"] and list(dots.y) == ["positions", "MLP in", "MLP in", "MLP in"]
    assert list(figure.layout.xaxis.categoryarray) == ["–", "0", "2", "10"]  # by number, not by letter
    assert list(dots.marker.color) == pytest.approx([20.0, 30.0, 40.0, 50.0])
    assert [width > 0 for width in dots.marker.line.width] == [False, False, True, False]
    assert tuple(dots.customdata) == LAYERS
    assert figure.layout.title.text and "%%" not in dots.hovertemplate


def test_facets_end_after_the_kept_components_unless_all_are_asked_for() -> None:
    assert spectrum_facets(layer_spectra(), TITLES).layout.xaxis.range is None
    narrow = spectrum_facets(layer_spectra(), TITLES, whole=False).layout
    assert narrow.xaxis.range == narrow.xaxis2.range == (0, 4)  # rank 2
    deep = replace(layer_spectra(), rank=1)
    assert len(spectrum_facets(deep, TITLES).data[0].x) == 4 and len(spectrum_facets(deep, TITLES, whole=False).data[0].x) == 3
