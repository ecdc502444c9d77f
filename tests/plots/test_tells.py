"""Figures of a study of what tells, from numbers made by hand."""

from __future__ import annotations

import pytest

from dcmerge.plots.tells import correlation_figure, regret_figure
from dcmerge.studies.tells import ALL, ALPHAS, Look, Plan, Row, Setting, Study
from dcmerge.studies.tells.measures import AGREEMENT, DIRSIM, DRIFT


@pytest.fixture
def study() -> Study:
    """Agreement is the accuracy; drift is its opposite, hoped to be small; DirSim is the same at both α."""
    looks = []
    for number in range(6):
        rows = []
        for factor in (0.5, 1.0):
            accuracy = {"a": 0.5 + 0.05 * number + 0.1 * factor, "b": 0.4 + 0.05 * number}
            drift = {task: 1 - value for task, value in accuracy.items()}
            measures = {AGREEMENT: accuracy, DRIFT: drift, DIRSIM: {"a": -float(number), "b": 0.0}}
            rows.append(Row(factor, factor, accuracy, measures))
        looks.append(Look(Setting(number, "ties"), tuple(rows)))
    return Study(Plan.of(), tuple(looks))


def test_every_measure_is_a_dot_with_whiskers_above_a_band_of_shuffled_labels(study: Study) -> None:
    band, dots = correlation_figure(study, ALL).data
    assert list(dots.y) == [DIRSIM, DRIFT, AGREEMENT]
    assert list(dots.x) == pytest.approx([study.correlation(name).value for name in dots.y])  # type: ignore[union-attr]
    assert dots.x[0] < -0.9 and dots.x[2] == pytest.approx(1)
    assert dots.error_x.array[2] == pytest.approx(0, abs=1e-9)
    one = study.correlation(DRIFT)
    assert one and tuple(band.x[3:5]) == one.null and one.null[0] < 0 < one.null[1]
    assert list(correlation_figure(study, ALPHAS).data[1].y) == [DRIFT, AGREEMENT]  # DirSim does not change with α
    assert "on Task B" in correlation_figure(study, ALL, "b", "Task B").layout.title.text


def test_regrets_are_in_points_beside_a_blind_choice(study: Study) -> None:
    figure = regret_figure(study, ALL)
    (bars,) = figure.data
    values = dict(zip(bars.y, bars.x, strict=True))
    # The best is merge 5 at α 1: 0.85 and 0.65; DirSim takes merge 0, at either α.
    assert values == pytest.approx({DIRSIM: 75 - (0.55 + 0.6 + 0.4 + 0.4) / 4 * 100, DRIFT: 0, AGREEMENT: 0})
    mean = sum(sum(row.accuracy.values()) / 2 for look in study.looks for row in look.rows) / 12
    assert figure.layout.shapes[0].x0 == pytest.approx(100 * (0.75 - mean))
