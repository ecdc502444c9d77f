"""The figure of continual merging: accuracy after each expert that came."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from dcmerge.plots.style import RAW, TEXT, task_colours, titled
from dcmerge.studies.continual import Sequel


def sequel_lines(sequel: Sequel, titles: Mapping[str, str]) -> go.Figure:
    """A line a task over the steps, thin until its own expert has come, and a thick one for the mean of the tasks so far."""
    figure, colours = go.Figure(), task_colours(list(sequel.order), titles)
    steps = [f"{place + 1}. {titles.get(expert, expert)}" for place, expert in enumerate(sequel.order)]
    for place, task in enumerate(sequel.order):
        values = [100 * step.evaluation.tasks[task].accuracy for step in sequel.steps]
        colour = colours[task]
        name = titles.get(task, task)
        before = figure.add_scatter(
            x=steps[: place + 1],
            y=values[: place + 1],
            mode="lines",
            showlegend=False,
            line={"color": colour, "width": 1, "dash": "dot"},
            legendgroup=task,
            name=f"{name}, before its own expert",
        )
        before.add_scatter(
            x=steps[place:],
            y=values[place:],
            mode="lines+markers",
            name=name,
            legendgroup=task,
            line={"color": colour, "width": 2},
        )
    means = [100 * sequel.so_far(place) for place in range(len(steps))]
    figure.add_scatter(x=steps, y=means, mode="lines+markers", name="mean so far", line={"color": TEXT, "width": 4})
    figure.add_vline(x=len(steps) - 1, line={"color": RAW, "width": 1, "dash": "dot"})
    figure.update_yaxes(range=[0, 104], ticksuffix=" %")
    title = f"Accuracy after each expert ({sequel.steps[-1].evaluation.measured_on})"
    return titled(figure, title, "expert that has just come", "top-1 accuracy", 460)
