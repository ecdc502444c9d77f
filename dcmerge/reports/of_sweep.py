"""The report of a sweep: its points, the best one, and what its choice is worth."""

from __future__ import annotations

from dcmerge.evaluation.objectives import MEAN
from dcmerge.plots import sweeps
from dcmerge.reports.model import Figure, Report, Section
from dcmerge.reports.of_runs import accuracy_values
from dcmerge.runtime.plain import from_plain
from dcmerge.studies.measuring import Row
from dcmerge.studies.sweep import SCALE, Found, described
from dcmerge.studies.sweep.tables import rows, to_data


def report_of_sweep(found: Found, title: str) -> Report:
    """``title`` names the set."""
    best, honest, plan = found.best, found.honest_estimate, found.plan
    figures = [_curve(found, axis.name) for axis in plan.axes if _has_scale(found, axis.name)]
    if len(found.whole) > 1:
        reading = "right is a better mean, up is a better worst task. No other point beats those on the dotted line in both."
        figures.append(Figure(sweeps.mean_against_worst(found), reading))
    about = {"what was varied": plan.text, "images": f"{found.images} validation images a task", "method": plan.method.title}
    values = {}
    if best is not None:
        estimate = found.estimate(best)
        about |= {"best": described(best), "what it is worth": found.origin}
        values |= {"best": estimate.value, "best_low": estimate.low, "alpha": best.scale}
    if honest is not None:
        values |= {"other_images": honest.value, "other_images_low": honest.low}
    if found.tests:
        measured = from_plain(Row, found.tests[-1]["row"]).measured
        about |= {"on test": f"{found.tests[-1]['values']}: {100 * measured.mean:.1f} % absolute, {measured.measured_on}"}
        values |= accuracy_values(measured, "test.")
    text = "Accuracies are normalised, in percent. A point that stopped early saw fewer images."
    sections = [Section("In pictures", figures=figures), Section("Every point", text, rows=rows(found))]
    return Report(title, about, sections, values, data={"sweep": to_data(found)})


def _has_scale(found: Found, name: str) -> bool:
    values = [point.values[name] for point in found.points if name in point.values]
    return bool(values) and all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values)


def _curve(found: Found, name: str) -> Figure:
    declared = found.plan.method.parameters.get(name)
    label = declared.constraint.title if declared else "scale α" if name == SCALE else name
    title = f"Mean normalised accuracy against {label} ({found.images} validation images a task)"
    reading = "each dot is a merge at its own best α, the whiskers are 95 % intervals. Hollow dots were surely beaten."
    return Figure(sweeps.curve(found, name, label, MEAN, title), reading)
