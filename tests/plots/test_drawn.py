"""What can be taken along of a figure is what it draws: compared with the numbers that went in."""

from __future__ import annotations

import csv
import io
from typing import Any

import plotly.graph_objects as go
import pytest

from dcmerge.plots import accuracy_against_cost, accuracy_bars, cumulative_lines, normalised_map, spectrum_facets
from dcmerge.plots.drawn import as_csv, drawn, file_name, summary
from tests.plots.builders import TITLES, comparison, evaluation, layer_spectra


def rows(figure: go.Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(figure))))


def numbers(figure: go.Figure, column: str, **where: str) -> list[float]:
    return [float(row[column]) for row in rows(figure) if all(row[name] == value for name, value in where.items())]


def test_bars_with_their_intervals() -> None:
    zero_shot, merged, experts = evaluation("zero", 1, 2), evaluation("merged", 5, 6), evaluation("experts", 8, 9)
    figure = accuracy_bars(zero_shot, merged, experts, TITLES, label="TIES")
    found = rows(figure)
    assert list(found[0]) == ["series", "task", "top-1 accuracy", "low", "high"] and len(found) == 6
    assert [row["task"] for row in found] == ["Birds", "Cars"] * 3
    accuracies = numbers(figure, "top-1 accuracy")
    assert accuracies == [value for bar in figure.data for value in bar.y] == pytest.approx([10, 20, 50, 60, 80, 90])
    wanted = [100 * end for run in (zero_shot, merged, experts) for task in run.tasks.values() for end in task.interval]
    ends = [end for pair in zip(numbers(figure, "low"), numbers(figure, "high"), strict=True) for end in pair]
    assert ends == pytest.approx(wanted)
    assert found[2]["series"] == "TIES (mean 55.0 %)"


def test_cells_of_a_map_once_each() -> None:
    found = comparison()
    figure = normalised_map(found, TITLES)
    measured = [row for row in found.rows if row.evaluation]
    wanted = {
        (row.title, TITLES[task]): 100 * one.normalised
        for row in measured
        for task, one in row.measured.tasks.items()
        if one.normalised is not None
    }
    table = rows(figure)
    assert list(table[0]) == ["method", "task", "% of expert"] and len(table) == len(wanted)
    assert {(row["method"], row["task"]): float(row["% of expert"]) for row in table} == wanted


def test_lines_of_small_plots_without_what_is_not_drawn() -> None:
    figure = spectrum_facets(layer_spectra(), TITLES)
    table = rows(figure)
    assert list(table[0]) == ["plot", "series", "component", "singular value"]
    assert numbers(figure, "singular value", plot="Birds", series="raw") == [4.0, 2.0, 1.0], "0 is not on a logarithmic axis"
    assert numbers(figure, "singular value", plot="Cars", series="raw") == [3.0, 3.0, 2.0, 1.0]
    assert numbers(figure, "singular value", plot="Birds", series="smoothed (average)") == [3.0, 3.0]
    assert numbers(figure, "component", plot="Birds", series="raw") == [1, 2, 3]


def test_two_lines_of_one_task_have_two_names() -> None:
    figure = cumulative_lines(layer_spectra(), TITLES, 1)
    column = "share of the sum of s"
    assert numbers(figure, column, series="Birds, raw") == [66.67, 100.0]
    assert numbers(figure, column, series="Birds") == [50.0, 100.0]
    assert sum(bool(line.showlegend) for line in figure.data) == 2


def test_lines_across_the_plot_are_values_too() -> None:
    found = comparison()
    figure = accuracy_against_cost(found)
    table = {row["series"]: row for row in rows(figure)}
    base = found.rows[0]
    assert float(table[base.title]["mean top-1 accuracy"]) == 100 * base.measured.mean
    assert table[base.title]["seconds to merge (log scale)"] == ""
    assert float(table["TIES-Merging"]["mean top-1 accuracy"]) == 100 * found.rows[2].measured.mean


def test_every_digit_is_kept_and_names_are_quoted() -> None:
    figure = go.Figure(go.Scatter(x=[0.1, 1 / 3], y=[1e-17, None], name='a "b", c', mode="lines"))
    figure.update_layout(xaxis_title="x<br>in <b>m</b>")
    assert rows(figure) == [{"series": 'a "b", c', "x in  m": "0.1", "y": "1e-17"}]


def test_what_only_decorates_is_left_out() -> None:
    figure = go.Figure([go.Scatter(x=[1], y=[2], hoverinfo="skip"), go.Scatter(x=[None], y=[None], name="legend alone")])
    figure.add_vline(3, name="chosen")
    figure.add_vline(4)
    figure.add_hrect(1, 2, name="band")
    assert drawn(figure) == [{"series": "chosen", "x": 3}, {"series": "band", "low": 1, "high": 2}]
    assert summary(figure) == "" and summary(go.Figure()) == "" and as_csv(go.Figure()).strip() == ""


def test_colours_that_are_numbers_are_values() -> None:
    marker: dict[str, Any] = {"color": [5.0, 7.0], "colorbar": {"title": {"text": "% of<br>s²"}}}
    figure = go.Figure(go.Scatter(x=["1", "2"], y=["a", "b"], mode="markers", marker=marker, text=["one", "two"]))
    figure.update_layout(xaxis_title="block", yaxis_title="kind")
    wanted = {"block": "1", "kind": "a", "% of s²": "5.0", "setting": "one"}
    assert rows(figure)[0] == wanted
    assert summary(figure) == "lowest 5 at 1, a, highest 7 at 2, b."


def test_the_sentence_tells_the_ends_of_every_series() -> None:
    figure = accuracy_bars(evaluation("zero", 1, 2), evaluation("merged", 5, 6), evaluation("experts", 8, 9), TITLES)
    assert "merged (mean 55.0 %): lowest 50 at Birds, highest 60 at Cars." in summary(figure)
    cells = summary(normalised_map(comparison(), TITLES))
    assert cells.startswith("lowest ") and "Birds" in cells
    many = go.Figure([go.Scatter(x=["p", "q"], y=[float(place), 20.0], name=str(place)) for place in range(9)])
    assert summary(many) == "All 9 series: lowest 0 at p, highest 20 at q."


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Accuracy per task (val split, 50 images a task)", "accuracy-per-task"),
        ("Singular values of visual.transformer/../x", "singular-values-of-visual-transformer-x"),
        ("ρ", "chart"),
        ("a" * 80, "a" * 60),
    ],
)
def test_file_names(title: str, name: str) -> None:
    assert file_name(title) == name
