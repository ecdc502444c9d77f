"""What is varied: ranges and scales from the declarations, grids, and points that are the same."""

from __future__ import annotations

import pytest

from dcmerge import InputError
from dcmerge.methods import method
from dcmerge.studies.sweep.axes import axes, axis, axis_text, cells, point_key, settled

DC = method("dc_merge")


def test_without_values_the_range_and_its_scale_are_the_declared_ones() -> None:
    rho, keep, scale = axes(DC, ["rho", "keep", "alpha"])
    assert (rho.low, rho.high, rho.log) == (1, 20, True)
    assert (keep.low, keep.high, keep.log) == (1e-4, 0.1, True)
    assert (scale.name, scale.low, scale.high, scale.log) == ("scale", 0.1, 3, False)
    assert axis(DC, "smoothing").options == ("auto", "none", "average", "linear")
    assert axis(DC, "elect").options == (True, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rho=1:16:5", (1.0, 2.0, 4.0, 8.0, 16.0)),
        ("rho=1:9:linear:5", (1.0, 3.0, 5.0, 7.0, 9.0)),
        ("rho=2,3,2", (2.0, 3.0)),
        ("keep=auto,0.01", (None, 0.01)),
        ("rank=4:7:20", (4, 5, 6, 7)),
        ("scale=0.5:2:4", (0.5, 1.0, 1.5, 2.0)),
    ],
)
def test_values_of_a_grid(text: str, expected: tuple) -> None:
    assert axis(DC, text).values(3) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed=1:2", "expected one of rank, smoothing, rho, keep, elect, block_mask, scale"),
        ("rho=5:1", "lower to a higher"),
        ("rho=0:5", "expected a number in [1, 1000]"),
        ("keep=0:0.1", "above 0 for a logarithmic scale"),
        ("rho=1:2:sideways", "expected log, linear or a number of values"),
        ("rho=1:2:3:4:5", "expected NAME"),
        ("rho=", "expected NAME"),
        ("smoothing=1:2", "some of its values"),
        ("smoothing=soft", "one of auto, none, average, linear"),
        ("rho=nan:3", "expected a number"),
        ("keep=auto:0.1", "end of the range"),
        ("scale=1:99", "[0.01, 10]"),
    ],
)
def test_what_cannot_be_varied_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("[", r"\[").replace("]", r"\]")):
        axis(DC, text)


def test_every_name_once_and_at_least_one() -> None:
    with pytest.raises(InputError, match="once"):
        axes(DC, ["rho", "rho=1:2"])
    with pytest.raises(InputError, match="at least one"):
        axes(DC, [])
    with pytest.raises(InputError, match="fixed|which is 1"):
        axes(method("average"), ["scale"])


def test_a_grid_holds_no_point_twice() -> None:
    """ρ matters with linear smoothing alone: eight values of it are one point without."""
    found = cells(DC, {}, axes(DC, ["smoothing=none,linear", "rho=1:20:8"]), 40)
    assert [cell["smoothing"] for cell in found] == ["none", *["linear"] * 8]


def test_a_grid_fills_the_trials_and_moves_alpha_fastest() -> None:
    found = cells(DC, {"smoothing": "linear"}, axes(DC, ["scale", "rho"]), 12)
    assert len(found) == 9  # 3 x 3
    assert [cell["rho"] for cell in found] == [1.0] * 3 + [4.47] * 3 + [20.0] * 3
    with pytest.raises(InputError, match="at least 27"):
        cells(DC, {"smoothing": "linear"}, axes(DC, ["rho=1:20:9", "keep=0.1,0.2,0.3"]), 26)


def test_points_are_the_same_where_what_differs_does_not_matter() -> None:
    assert point_key(DC, {"smoothing": "none"}, {"rho": 3.0}) == point_key(DC, {"smoothing": "none"}, {"rho": 9.0})
    assert point_key(DC, {"smoothing": "linear"}, {"rho": 3.0}) != point_key(DC, {"smoothing": "linear"}, {"rho": 9.0})
    assert point_key(DC, {}, {"scale": 1.0}) != point_key(DC, {}, {})
    assert settled(DC, {"smoothing": "average", "rho": 9.0})["rho"] == 5.0


def test_axes_in_words() -> None:
    assert axis_text(axis(DC, "rho")) == "rho from 1 to 20 (logarithmic)"
    assert axis_text(axis(DC, "keep=auto,0.01")) == "keep among auto, 0.01"
