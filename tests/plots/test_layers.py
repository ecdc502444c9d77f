"""Values by task and place: every name on hover, empty cells where there is none."""

from __future__ import annotations

import math

from dcmerge.plots.drawn import drawn
from dcmerge.plots.layers import layer_map


def test_cells_carry_their_names() -> None:
    figure = layer_map([[0.1, None], [0.3, math.nan]], ["MLP in, block 0", "projection"], ["Birds", "Cars"], "DirSim", "A title")
    records = drawn(figure)
    assert [(record["task"], record["place in the model, by depth"], record["DirSim"]) for record in records] == [
        ("Birds", "MLP in, block 0", 0.1),
        ("Cars", "MLP in, block 0", 0.3),
    ]
    (cells,) = figure.data
    assert "%{y}, %{x}" in cells.hovertemplate and cells.hoverongaps is False


def test_a_difference_has_0_in_the_middle() -> None:
    (cells,) = layer_map([[-2.0, 1.0]], ["a", "b"], ["Birds"], "DirSim", "A title", difference=True).data
    assert (cells.zmin, cells.zmax) == (-2.0, 2.0)
