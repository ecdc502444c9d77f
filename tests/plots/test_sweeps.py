"""Figures of sweeps from points made by hand: two smoothings, of which one has no ρ."""

from __future__ import annotations

import pytest
import torch

from dcmerge.plots import studies, sweeps
from dcmerge.plots.drawn import drawn
from dcmerge.studies.sweep import Arm, Found, Plan, Point

PLAN = Plan.of("dc_merge", ["smoothing=none,linear", "rho=1:20:3"], test=False)


def hits(right: int, images: int = 10) -> dict[str, torch.Tensor]:
    return {"a": torch.arange(images) < right, "b": torch.arange(images) < right - 2}


def point(number: int, values: dict, right: int, *more: Arm, stopped: bool = False) -> Point:
    seen = hits(right, 4) if stopped else hits(right)
    return Point(number, values, {"smoothing": "linear", **values}, (Arm(2.0, seen), *more), stopped, 0.1, 1.0)


@pytest.fixture
def found() -> Found:
    points = (
        point(0, {"smoothing": "none"}, 6),
        point(1, {"smoothing": "linear", "rho": 20.0}, 4, stopped=True),
        point(2, {"smoothing": "linear", "rho": 1.0}, 8, Arm(1.0, hits(3, 5))),
        point(3, {"smoothing": "linear", "rho": 4.47}, 7),
    )
    return Found(PLAN, points, hits(12), hits(0))


def test_a_curve_has_a_line_a_smoothing_in_the_order_of_rho(found: Found) -> None:
    groups = sweeps.curve_values(found, "rho", "mean")
    assert list(groups) == ["smoothing none", "smoothing linear"]
    assert [dot.x for dot in groups["smoothing none"]] == [None]
    assert [(dot.number, dot.x) for dot in groups["smoothing linear"]] == [(2, 1.0), (3, 4.47), (1, 20.0)]
    assert [dot.estimate.value for dot in groups["smoothing linear"][:2]] == pytest.approx([0.7, 0.6])  # (0.8 + 0.6) / 2
    assert sweeps.curve_values(found, "rho", "b")["smoothing none"][0].estimate.value == pytest.approx(0.4)


def test_the_curve_shows_intervals_early_stops_and_what_has_no_rho(found: Found) -> None:
    figure = sweeps.curve(found, "rho", "ρ", selected=3)
    line = next(trace for trace in figure.data if trace.name == "smoothing linear")
    assert list(line.marker.symbol) == ["circle", "circle", "circle-open"]
    assert line.marker.size[1] > line.marker.size[0]
    estimate = found.estimate(found.points[2])
    assert line.error_y.array[0] == pytest.approx(100 * (estimate.high - estimate.value))
    assert figure.layout.xaxis.type == "log" and "ρ" in figure.layout.xaxis.title.text
    assert len(figure.layout.shapes) == 2  # the interval and the value of no smoothing


def test_every_task_has_a_small_plot(found: Found) -> None:
    figure = sweeps.task_curves(found, "rho", "ρ", {"a": "Apples"})
    assert [note.text for note in figure.layout.annotations] == ["Apples", "b"]
    assert {trace.name for trace in figure.data} == {"smoothing none", "smoothing linear"}


def test_the_map_has_every_alpha_that_was_tried(found: Found) -> None:
    places = sweeps.map_values(found, "rho", "scale")
    assert {(x, y) for x, y, *_ in places} == {(1.0, 2.0), (1.0, 1.0), (4.47, 2.0), (20.0, 2.0)}
    assert [value for _, _, value, *_ in places] == sorted(value for _, _, value, *_ in places)  # the best is drawn last
    (trace,) = sweeps.parameter_map(found, "rho", "scale", {"rho": "ρ"}, (2, 1.0)).data
    assert sum(width == 3 for width in trace.marker.line.width) == 1


def test_the_front_joins_what_nothing_beats(found: Found) -> None:
    edge, dots = sweeps.mean_against_worst(found).data
    assert list(edge.x) == pytest.approx([70.0]) and len(dots.x) == 3  # the one that stopped early is not among them


def test_optunas_figures_show_the_points_that_saw_all_images(found: Found) -> None:
    study = studies.study_of(found)
    assert [trial.value for trial in study.trials] == pytest.approx([50, 70, 60])
    assert studies.importance_values(found) == {}  # of three points nothing can be said
    lines = studies.parallel_coordinates(found, {"rho": "ρ"}).data[0]
    assert "ρ" in {dimension.label for dimension in lines.dimensions}


def test_the_most_important_parameter_stands_on_top() -> None:
    (bars,) = studies.importance_bars({"rho": 0.8, "scale": 0.2}, {"rho": "ρ"}).data
    assert list(bars.y) == ["scale", "ρ"] and list(bars.x) == [20.0, 80.0]


def test_the_curve_can_be_taken_along(found: Found) -> None:
    records = drawn(sweeps.curve(found, "rho", "ρ"))
    value = "Mean normalised accuracy"
    y = next(name for name in records[0] if name.lower() == value.lower())
    line = [record for record in records if record["series"] == "smoothing linear"]
    assert [record["ρ (log scale)"] for record in line] == [1.0, 4.47, 20.0]
    whole = found.estimate(found.points[2])
    assert line[0][y] == pytest.approx(100 * whole.value)
    assert (line[0]["low"], line[0]["high"]) == pytest.approx((100 * whole.low, 100 * whole.high))
    assert "stopped after 4 images a task" in str(line[2]["setting"])
    none = found.estimate(found.points[0])
    assert next(r for r in records if r["series"] == "smoothing none")[y] == pytest.approx(100 * none.value)
    band = next(r for r in records if r["series"] == "smoothing none, 95 % interval")
    assert (band["low"], band["high"]) == pytest.approx((100 * none.low, 100 * none.high))


def test_the_map_and_the_front_tell_the_settings(found: Found) -> None:
    cells = drawn(sweeps.parameter_map(found, "rho", "scale", {"rho": "ρ", "scale": "α"}))
    places = sweeps.map_values(found, "rho", "scale")
    assert [(c["ρ (log scale)"], c["α (log scale)"], c["% of expert"]) for c in cells] == [
        (x, y, 100 * value) for x, y, value, *_ in places
    ]
    assert [cell["setting"] for cell in cells] == [text for *_, text in places]
    front = drawn(sweeps.mean_against_worst(found))
    assert len(front) == len(found.whole) and all("α" in str(record["setting"]) for record in front)


def test_parallel_lines_can_be_taken_along(found: Found) -> None:
    records = drawn(studies.parallel_coordinates(found, {"rho": "ρ", "scale": "scale α"}))
    whole = [point for point in found.whole if "rho" in point.values]
    assert sorted(float(record["ρ"]) for record in records) == pytest.approx(sorted(p.values["rho"] for p in whole))
    assert {record["smoothing"] for record in records} == {p.values["smoothing"] for p in whole}
    targets = {round(100 * found.estimate(point).value, 6) for point in whole}
    assert {round(float(record["% of expert"]), 6) for record in records} == targets
