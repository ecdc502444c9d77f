"""Figures of methods side by side: titled, axes named, the right numbers, and no failed method among them."""

from __future__ import annotations

import math
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from dcmerge.plots import accuracy_against_cost, dirsim_bars, drift_lines, loss_lines, normalised_map
from tests.plots.builders import TITLES, comparison


def axes(figure: go.Figure) -> tuple[str, str]:
    return figure.layout.xaxis.title.text, figure.layout.yaxis.title.text


def test_map_of_normalised_accuracy_with_the_references() -> None:
    figure = normalised_map(comparison(), TITLES)
    heatmap, numbers = figure.data
    assert list(numbers.text) == ["25", "50", "75", "100", "50", "75", "87", "100"]
    assert list(numbers.textfont.color[:4]) == ["#ffffff", "#ffffff", "#000000", "#000000"]
    assert list(heatmap.x) == ["Zero-shot (the base)", "Weight averaging", "TIES-Merging", "Experts, each on its own task"]
    assert list(heatmap.y) == ["Birds", "Cars"]
    assert list(heatmap.z[0]) == pytest.approx([25.0, 50.0, 75.0, 100.0])
    assert list(heatmap.customdata[1]) == pytest.approx([40.0, 60.0, 70.0, 80.0])
    assert "test split, 10 images a task" in figure.layout.title.text and axes(figure) == ("method", "task")


def test_accuracy_against_cost_is_a_labelled_point_a_method() -> None:
    found = comparison()
    figure = accuracy_against_cost(found)
    assert [(list(p.x), list(p.y), list(p.text)) for p in figure.data] == [
        ([0.5], [pytest.approx(50.0)], ["Weight averaging"]),
        ([1.5], [pytest.approx(65.0)], ["TIES-Merging"]),
    ]
    low, high = found.row("ties").evaluation.mean_interval
    assert figure.data[1].error_y.array[0] == pytest.approx(100 * high - 65)
    assert figure.data[1].error_y.arrayminus[0] == pytest.approx(65 - 100 * low)
    assert [line.y0 for line in figure.layout.shapes] == pytest.approx([30.0, 80.0])
    assert figure.layout.xaxis.type == "log"
    assert axes(figure) == ("seconds to merge (log scale)", "mean top-1 accuracy")


def test_labels_of_points_that_lie_close_go_to_different_sides() -> None:
    found = comparison()
    crowd = tuple(replace(found.rows[2], title=f"Method {i}") for i in range(3))
    figure = accuracy_against_cost(replace(found, rows=(*found.rows[:2], *crowd)))
    assert {point.textposition for point in figure.data[1:]} == {"middle left", "top center", "bottom center"}  # all in the plot
    low, high = figure.layout.xaxis.range
    assert low < math.log10(0.5) and math.log10(1.5) < high


def test_before_any_method_there_are_only_the_lines() -> None:
    figure = accuracy_against_cost(replace(comparison(), rows=comparison().rows[:1]))
    assert not figure.data and len(figure.layout.shapes) == 1


def test_dirsim_with_the_range_over_experts() -> None:
    figure = dirsim_bars(comparison())
    (bars,) = figure.data
    assert list(bars.x) == ["Weight averaging", "TIES-Merging"] and list(bars.y) == [0.3, 0.3]
    assert list(bars.error_y.array) == pytest.approx([0.1, 0.1])
    assert list(bars.error_y.arrayminus) == pytest.approx([0.1, 0.1])
    assert "DirSim" in figure.layout.title.text and axes(figure)[0] == "method"


def test_drift_by_depth_in_units_of_the_base_and_absolute() -> None:
    relative, absolute = (drift_lines(comparison(), relative=flag) for flag in (True, False))
    assert [line.name for line in relative.data] == ["Weight averaging", "TIES-Merging", "the base"]
    assert list(relative.data[0].x) == ["block 1", "features"]
    assert list(relative.data[0].y) == pytest.approx([0.375, 0.625]) and list(relative.data[2].y) == [1.0, 1.0]
    assert list(absolute.data[0].y) == pytest.approx([0.75, 1.0]) and list(absolute.data[2].y) == pytest.approx([2.0, 2.5])
    assert "test split, 5 images a task" in relative.layout.title.text
    assert "base" in axes(relative)[1] and "squared" in axes(absolute)[1]


def test_more_methods_than_colours_differ_by_dash() -> None:
    found = comparison()
    many = replace(found, rows=found.rows[:2] + tuple(replace(found.rows[1], title=f"m{i}") for i in range(12)))
    looks = {(line.line.color, line.line.dash) for line in drift_lines(many).data}
    assert len(looks) == len(drift_lines(many).data)


def test_losses_start_at_one_and_keep_their_values() -> None:
    found = comparison()
    rows = (found.rows[0], replace(found.rows[1], curve=(4.0, 2.0, 1.0)), *found.rows[2:])
    (line,) = loss_lines(replace(found, rows=rows)).data
    assert (line.name, list(line.x), list(line.y)) == ("Weight averaging", [1, 2, 3], [1.0, 0.5, 0.25])
    assert list(line.customdata) == [4.0, 2.0, 1.0] and not loss_lines(found).data


def test_without_a_diagnosis_the_figures_are_empty() -> None:
    found = comparison(diagnosed=False)
    assert not drift_lines(found).data and not dirsim_bars(found).data[0].x
