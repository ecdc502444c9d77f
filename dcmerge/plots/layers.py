"""Values by task and matrix as a map, with every name on hover."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from dcmerge.plots.style import DIVERGING, SCALE, colour_bar, known, titled

_ROW = 30


def layer_map(
    values: Sequence[Sequence[float | None]],
    places: Sequence[str],
    tasks: Sequence[str],
    measure: str,
    title: str,
    *,
    difference: bool = False,
) -> go.Figure:
    """A row a task, a column a matrix or place in the model; of a ``difference`` 0 is the middle of the colours."""
    z = [list(map(known, row)) for row in values]
    sizes = [abs(value) for row in z for value in row if value is not None]
    limit = max(sizes, default=1.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=list(places),
            y=list(tasks),
            colorscale=DIVERGING if difference else SCALE,
            zmin=-limit if difference else None,
            zmax=limit if difference else None,
            colorbar=colour_bar(measure),
            hoverongaps=False,
            hovertemplate=f"%{{y}}, %{{x}}<br>{measure}: %{{z:.3g}}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    figure.update_xaxes(type="category", tickangle=-40, showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return titled(figure, title, "place in the model, by depth", "task", 200 + _ROW * len(tasks))
