"""Figures of accuracies: titled, axes named, the right numbers."""

from __future__ import annotations

import pytest

from dcmerge.evaluation import Scale
from dcmerge.evaluation.accuracy import wilson_interval
from dcmerge.plots import accuracy_bars, comparison_bars, scale_curve
from tests.plots.builders import TITLES, evaluation


def test_bars_of_zero_shot_merged_and_expert() -> None:
    figure = accuracy_bars(
        evaluation("zero-shot", 2, 4), evaluation("ties", 5, 6), evaluation("experts", 8, 10), TITLES, label="TIES"
    )
    zero_shot, merged, expert = figure.data
    assert list(merged.x) == ["Birds", "Cars"] and list(merged.y) == pytest.approx([50.0, 60.0])
    means = ["zero-shot (mean 30.0 %)", "TIES (mean 55.0 %)", "expert (mean 90.0 %)"]
    assert [bar.name for bar in figure.data] == means
    low, high = wilson_interval(5, 10)
    assert merged.error_y.array[0] == pytest.approx(100 * high - 50)
    assert merged.error_y.arrayminus[0] == pytest.approx(50 - 100 * low)
    assert list(merged.customdata[0]) == pytest.approx([100 * low, 100 * high])
    assert len({bar.marker.color for bar in figure.data}) == 3
    assert "validation split, 10 images a task" in figure.layout.title.text
    assert figure.layout.xaxis.title.text == "task" and figure.layout.yaxis.title.text == "top-1 accuracy"


def test_whiskers_stay_between_0_and_100() -> None:
    figure = accuracy_bars(evaluation("zero-shot", 0, 10), None, evaluation("experts", 10, 10), TITLES)
    assert len(figure.data) == 2
    for bar in figure.data:
        for y, up, down in zip(bar.y, bar.error_y.array, bar.error_y.arrayminus, strict=True):
            assert y + up <= 100 + 1e-9 and y - down >= -1e-9


def test_two_runs_side_by_side() -> None:
    runs = [("A α=1", evaluation("a", 5, 5, split="test")), ("B α=2", evaluation("b", 7, 1, split="test"))]
    figure = comparison_bars(runs, TITLES)
    assert [list(bar.y) for bar in figure.data] == [[50.0, 50.0], [70.0, 10.0]]
    assert figure.data[0].name == "A α=1 (mean 50.0 %)" and figure.data[0].marker.color != figure.data[1].marker.color
    assert "test split" in figure.layout.title.text


def test_alpha_curve_of_every_run_and_the_alpha_in_use() -> None:
    ties, iso_c = ((0.1, 0.5), (0.2, 0.75)), ((0.1, 0.6),)
    curves = {"TIES": Scale(0.2, "validation", ties), "Iso-C": Scale(0.1, "validation", iso_c)}
    figure = scale_curve(curves, chosen=0.2)
    assert list(figure.data[0].x) == [0.1, 0.2] and list(figure.data[0].y) == [50.0, 75.0]
    assert [line.name for line in figure.data] == ["TIES", "Iso-C"]
    assert figure.layout.shapes[0].x0 == 0.2 and figure.layout.annotations[0].text == "α = 0.2"
    assert "validation" in figure.layout.title.text
    assert figure.layout.xaxis.title.text == "scale α" and "normalised" in figure.layout.yaxis.title.text
