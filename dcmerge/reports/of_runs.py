"""Reports of runs: one, or several beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dcmerge.errors import InputError
from dcmerge.evaluation import Evaluation
from dcmerge.merging.recipe import Recipe
from dcmerge.methods.declare import values_text
from dcmerge.plots import comparison_bars
from dcmerge.reports.model import Figure, Report, Section
from dcmerge.runs import Run, paired
from dcmerge.runs.fields import to_data
from dcmerge.studies.run_names import label_of

_BARS = "the whiskers are 95 % intervals. A difference inside them may be chance."


def report_of_runs(runs: Sequence[Run], titles: Mapping[str, str] | None = None) -> Report:
    """The first run is what the others are compared to, where they were measured on the same images."""
    first, names = runs[0], [label_of(run) for run in runs]
    labels = [name if names.count(name) == 1 else f"{name} ({run.id})" for name, run in zip(names, runs, strict=True)]
    about = {"set": first.set.name, "measured on": "; ".join(dict.fromkeys(run.evaluation.measured_on for run in runs))}
    about |= {f"run {run.id}": _about(run) for run in runs}
    bars = comparison_bars([(label, run.evaluation) for label, run in zip(labels, runs, strict=True)], titles or {})
    if len(runs) == 1:
        bars.update_layout(title_text=f"Accuracy per task ({first.evaluation.measured_on})")
    sections = [Section("Accuracy", "", [Figure(bars, _BARS)], [_row(name, run) for name, run in zip(labels, runs, strict=True)])]
    sections += _differences(runs, labels)
    values = accuracy_values(first.evaluation)
    for run in runs[1:]:
        values |= accuracy_values(run.evaluation, f"{run.id}.")
    recipes = {
        f"recipe of {name}, with which `python -m dcmerge run recipe.yaml` makes the model": text
        for name, run in zip(labels, runs, strict=True)
        if (text := _recipe(run))
    }
    return Report(f"{', '.join(labels)}", about, sections, values, recipes, {"runs": [to_data(run) for run in runs]})


def accuracy_values(measured: Evaluation, prefix: str = "") -> dict[str, float]:
    """What bounds can ask of an evaluation: "mean", "normalised", "worst", "joint", and "accuracy.TASK"."""
    found = {
        "mean": measured.mean,
        "mean_low": measured.mean_interval[0],
        "normalised": measured.mean_normalised,
        "worst": measured.worst.accuracy,
        "joint": measured.joint_mean,
        **{f"accuracy.{name}": task.accuracy for name, task in measured.tasks.items()},
    }
    return {f"{prefix}{name}": value for name, value in found.items() if value is not None}


def _about(run: Run) -> str:
    values = "; ".join(filter(None, (values_text(run.values), run.mix_text)))
    alpha = "" if run.alpha is None else f"α = {run.alpha:g} ({run.alpha_origin})"
    parts = [run.variant or run.method, values, alpha, run.tried, run.note, f"made {run.made}" if run.made else ""]
    return "; ".join(filter(None, parts))


def _row(name: str, run: Run) -> dict[str, Any]:
    measured = run.evaluation
    tasks = {task: _with_interval(one.accuracy, one.interval) for task, one in measured.tasks.items()}
    return {"run": name, "mean": _with_interval(measured.mean, measured.mean_interval), **tasks}


def _with_interval(share: float, interval: tuple[float, float]) -> str:
    return f"{100 * share:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _differences(runs: Sequence[Run], labels: Sequence[str]) -> Iterator[Section]:
    rows = []
    for name, run in list(zip(labels, runs, strict=True))[1:]:
        try:
            found = paired(run, runs[0])
        except InputError:
            rows.append({"run": name, "points": "measured on other images"})
            continue
        low, high = 100 * found.low, 100 * found.high
        rows.append({"run": name, "points": f"{100 * found.value:+.1f}", "95 % interval": f"{low:+.1f} to {high:+.1f}"})
    if rows:
        text = "Image by image on the same images. Where the interval holds 0, these images show no difference."
        yield Section(f"Difference to {labels[0]}", text, rows=rows)


def _recipe(run: Run) -> str:
    if run.recipe is None:
        return ""
    try:
        return Recipe.of(run.recipe).to_yaml()
    except InputError as error:
        return f"This recipe cannot be read here: {error}"
