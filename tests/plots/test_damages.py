"""Figures of a damage map from hits made by hand."""

from __future__ import annotations

import pytest
import torch

from dcmerge.plots import damages
from dcmerge.studies.damage import BASE, EXPERT, DamageMap
from dcmerge.studies.damage.found import Repaired

TITLES = {"a": "Task A", "b": "Task B"}


def hits(a: int, b: int) -> dict[str, torch.Tensor]:
    return {"a": torch.arange(40) < a, "b": torch.arange(40) < b}


@pytest.fixture
def found() -> DamageMap:
    """The first part loses 20 of 40 images on a; the second nothing beyond noise."""
    changed = {
        EXPERT: {"x.0.weight": hits(30, 21), "x.1.weight": hits(10, 20)},
        BASE: {"x.0.weight": hits(4, 20), "x.1.weight": hits(10, 20)},
    }
    repaired = (Repaired((), 0.4, 0, 0.0), Repaired(("x.0.weight",), 0.6, 128, 0.5))
    return DamageMap(("x.0.weight", "x.1.weight"), hits(10, 20), hits(36, 36), hits(2, 12), changed, {}, repaired)


def test_every_cell_is_a_square_and_noise_is_faint(found: DamageMap) -> None:
    (squares,) = damages.map_figure(found, EXPERT, TITLES, chosen="x.1.weight").data
    places = {
        (row[0], row[1]): (colour, faint)
        for row, colour, faint in zip(squares.customdata, squares.marker.color, squares.marker.opacity, strict=True)
    }
    assert len(places) == 2 * 3  # two tasks, and all
    assert places["x.0.weight", "a"] == (pytest.approx(50.0), 1.0)
    assert places["x.0.weight", "b"][0] == pytest.approx(2.5) and places["x.0.weight", "b"][1] < 0.5
    assert places["x.1.weight", "a"] == (0.0, pytest.approx(places["x.0.weight", "b"][1]))
    mean, shown = places["x.0.weight", damages._ALL]
    assert mean == pytest.approx(26.25) and shown == 1.0
    assert squares.marker.cmax == 50 and set(squares.x) == {"Task A", "Task B", damages._ALL}
    assert [width > 0 for width in squares.marker.line.width] == [row[0] == "x.1.weight" for row in squares.customdata]


def test_fewer_images_are_said_in_the_title(found: DamageMap) -> None:
    figure = damages.map_figure(found, EXPERT, TITLES, images=20)
    assert "(20 validation images a task)" in figure.layout.title.text
    assert {row[4] for row in figure.data[0].customdata if row[1] in TITLES} == {20}


def test_single_changes_stand_beside_all_at_once(found: DamageMap) -> None:
    singles, joint = damages.sums_figure(found, EXPERT, TITLES).data
    assert list(singles.y) == pytest.approx([50.0, 2.5]) and list(joint.y) == pytest.approx([65.0, 40.0])
    assert list(damages.sums_figure(found, BASE, TITLES).data[1].y) == pytest.approx([-20.0, -20.0])


def test_a_repair_tells_what_it_costs(found: DamageMap) -> None:
    (line,) = damages.repair_figure(found).data
    assert list(line.x) == [0, 50] and list(line.y) == pytest.approx([40, 60]) and list(line.text) == ["0", "1"]
