"""Figures of accuracies: bars with intervals, the α curve, two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from dcmerge.evaluation import Evaluation, Scale
from dcmerge.plots.style import EXPERT, MERGED, PALETTE, PINNED, TEXT, ZERO_SHOT, bar_look, titled, whiskers


def accuracy_bars(
    zero_shot: Evaluation, merged: Evaluation | None, experts: Evaluation, titles: Mapping[str, str], *, label: str = "merged"
) -> go.Figure:
    """Per task: zero-shot, merged and expert accuracy with 95 % Wilson intervals, on the same images."""
    rows = [("zero-shot", zero_shot, ZERO_SHOT), (label, merged, MERGED), ("expert", experts, EXPERT)]
    return _grouped([row for row in rows if row[1] is not None], titles, f"Accuracy per task ({experts.measured_on})")


def comparison_bars(runs: Sequence[tuple[str, Evaluation]], titles: Mapping[str, str]) -> go.Figure:
    """Two or more runs task by task, on the same images."""
    colours = (MERGED, PINNED, *PALETTE[2:])
    rows = [(name, run, colours[place % len(colours)]) for place, (name, run) in enumerate(runs)]
    count = "Two" if len(runs) == 2 else str(len(runs))
    return _grouped(rows, titles, f"{count} runs side by side ({runs[0][1].measured_on})")


def _grouped(rows: Sequence[tuple[str, Evaluation, str]], titles: Mapping[str, str], title: str) -> go.Figure:
    figure = go.Figure()
    for name, run, colour in rows:
        tasks = list(run.tasks.values())
        accuracy = [100 * task.accuracy for task in tasks]
        lows, highs = zip(*(task.interval for task in tasks), strict=True)
        figure.add_bar(
            x=[titles.get(task.task, task.task) for task in tasks],
            y=accuracy,
            name=f"{name} (mean {100 * run.mean:.1f} %)",
            marker=bar_look(colour),
            error_y=whiskers(accuracy, [100 * low for low in lows], [100 * high for high in highs]),
            customdata=[[100 * low, 100 * high] for low, high in zip(lows, highs, strict=True)],
            hovertemplate="%{x}: %{y:.1f} % [%{customdata[0]:.1f}, %{customdata[1]:.1f}]",
        )
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_yaxes(range=[0, 104], ticksuffix=" %")
    return titled(figure, title, "task", "top-1 accuracy", 430)


def reached_bars(models: Mapping[str, tuple[float, float, float]], measured_on: str) -> go.Figure:
    """How far a merge gets between base and experts: the mean accuracy of each model by title, as (mean, low, high) shares."""
    means, lows, highs = ([100 * part for part in parts] for parts in zip(*models.values(), strict=True))
    colours = [ZERO_SHOT, *[MERGED] * (len(models) - 2), EXPERT]
    figure = go.Figure(
        go.Bar(
            x=list(models),
            y=means,
            marker=bar_look(colours),
            error_y=whiskers(means, lows, highs),
            customdata=list(zip(lows, highs, strict=True)),
            text=[f"{mean:.1f} %" for mean in means],
            textposition="inside",
            insidetextanchor="middle",
            textfont={"color": TEXT},
            hovertemplate="%{x}: %{y:.1f} % [%{customdata[0]:.1f}, %{customdata[1]:.1f}]<extra></extra>",
        )
    )
    figure.update_yaxes(range=[0, 104], ticksuffix=" %")
    return titled(
        figure, f"How far a merge gets from the base to the experts ({measured_on})", "model", "mean top-1 accuracy", 320
    )


def scale_curve(
    curves: Mapping[str, Scale], chosen: float | None = None, measured: str = "mean normalised accuracy"
) -> go.Figure:
    """Mean normalised validation accuracy, or another share that was ``measured``, against α, a line a run.

    The α in use is marked.
    """
    figure = go.Figure()
    for name, scale in curves.items():
        alpha, accuracy = zip(*scale.curve, strict=True)
        figure.add_scatter(
            x=alpha, y=[100 * a for a in accuracy], mode="lines+markers", name=name, hovertemplate="α = %{x:.2g}: %{y:.1f} %"
        )
    if chosen is not None:
        figure.add_vline(chosen, line={"dash": "dot", "width": 1.5}, annotation_text=f"α = {chosen:g}", name="α in use")
    figure.update_yaxes(ticksuffix=" %")
    origin = next(iter(curves.values())).origin
    return titled(figure, f"Choice of α ({origin})", "scale α", measured, 360)
