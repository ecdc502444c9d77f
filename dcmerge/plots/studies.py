"""Optuna's own figures of a study, in the project's colours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from dcmerge.evaluation.objectives import MEAN
from dcmerge.plots.style import MERGED, SCALE, bar_look, titled
from dcmerge.studies.sweep import SCALE as ALPHA
from dcmerge.studies.sweep import Found
from dcmerge.studies.sweep.store import distribution

#: Fewer points than this say nothing of which parameter matters.
FEWEST = 5


def study_of(found: Found) -> optuna.Study:
    """The points that saw all images as a study in memory: the mean normalised accuracy in percent, α among the parameters."""
    study, alphas = optuna.create_study(direction="maximize"), [point.scale for point in found.whole]
    known = {one.name: distribution(one, found.plan.sampler) for one in found.plan.axes}
    if ALPHA not in known and alphas:
        known[ALPHA] = optuna.distributions.FloatDistribution(min(alphas), max(alphas), log=min(alphas) > 0)
    for point in found.whole:
        values = {**point.values, ALPHA: point.scale}
        values = {name: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for name, v in values.items()}
        own = {name: known[name] for name in values if name in known}
        trial = optuna.trial.create_trial(
            params={name: values[name] for name in own}, distributions=own, value=100 * found.estimate(point, MEAN).value
        )
        study.add_trial(trial)
    return study


def parallel_coordinates(found: Found, labels: Mapping[str, str]) -> go.Figure:
    """One line a point across all that was varied, coloured by the mean normalised accuracy."""
    names = [one.name for one in found.plan.axes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        params = [*names, *([] if ALPHA in names else [ALPHA])]
        figure = optuna.visualization.plot_parallel_coordinate(study_of(found), params=params, target_name="% of expert")
    figure.update_traces(labelside="top", line={"colorscale": SCALE, "reversescale": False, "colorbar": {"thickness": 12}})
    lines: Any = figure.data[0]  # plotly makes its attributes at run time
    for dimension in lines.dimensions:
        dimension.label = labels.get(dimension.label, dimension.label)
    titled(figure, "Every point across all that was varied", "", "", 430)
    return figure.update_layout(margin={"l": 70, "r": 30, "t": 110, "b": 30})


def importance_values(found: Found) -> dict[str, float]:
    """How much of what good points have in common each parameter explains (PED-ANOVA), summing to 1; empty of too few points."""
    study = study_of(found)
    shared = [name for name in _names(study) if len({trial.params[name] for trial in study.trials}) > 1]
    if len(study.trials) < FEWEST or not shared:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=shared)


def _names(study: optuna.Study) -> list[str]:
    """The parameters that every trial has."""
    trials = study.trials
    return [name for name in (trials[0].params if trials else ()) if all(name in trial.params for trial in trials)]


def importance_bars(values: Mapping[str, float], labels: Mapping[str, str]) -> go.Figure:
    """``importance_values`` as bars, the most important on top."""
    names = list(values)[::-1]
    figure = go.Figure(
        go.Bar(
            x=[100 * values[name] for name in names],
            y=[labels.get(name, name) for name in names],
            orientation="h",
            marker=bar_look(MERGED),
            hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
        )
    )
    figure.update_xaxes(ticksuffix=" %", rangemode="tozero")
    return titled(figure, "Which parameter matters", "share of the importance", "parameter", 140 + 44 * len(names))
