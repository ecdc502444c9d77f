"""The report of a comparison: every method on the same images."""

from __future__ import annotations

from collections.abc import Mapping

from dcmerge.plots import accuracy_against_cost, dirsim_bars, drift_lines, normalised_map
from dcmerge.reports.model import Figure, Report, Section
from dcmerge.reports.of_runs import accuracy_values
from dcmerge.studies import exports
from dcmerge.studies.comparison import Comparison

#: The columns of the table, out of many.
_COLUMNS = ("method", "accuracy", "accuracy low", "accuracy high", "normalised", "joint accuracy", "worst task", "worst accuracy")
_COLUMNS += (
    "minus averaging",
    "minus averaging low",
    "minus averaging high",
    "alpha",
    "alpha from",
    "parameters",
    "merge seconds",
)


def report_of_comparison(found: Comparison, title: str, titles: Mapping[str, str] | None = None) -> Report:
    """``title`` names the set and the methods."""
    measured = [row for row in found.rows if row.evaluation]
    figures = [
        Figure(
            normalised_map(found, titles or {}),
            "each cell is the accuracy of a method on a task, divided by that of the task's own expert. A dark row is a task "
            "that merging loses.",
        )
    ]
    merged = [row for row in measured if not row.is_reference]
    if merged:
        reading = "up is better, left is faster. Methods whose 95 % whiskers overlap widely may be equally good."
        figures.append(Figure(accuracy_against_cost(found), reading))
    if any(row.drift for row in merged):
        reading = "higher means that the merged weights still point where the experts pointed."
        figures.append(Figure(dirsim_bars(found), reading))
        reading = "how far a merged model is from the experts after every block; 0 is the same as the expert."
        figures.append(Figure(drift_lines(found), reading))
    rows = [{name: row[name] for name in _COLUMNS} for row in exports.table(found)]
    failed = {f"failed: {row.title}": row.error for row in found.rows if row.error}
    about = {"measured on": found.measured_on, "α": "chosen on validation images unless the table says otherwise", **failed}
    text = "Top-1 accuracy in percent, with 95 % intervals. Differences are in points, image by image."
    values = {name: value for row in measured for name, value in accuracy_values(row.measured, f"{row.name}.").items()}
    best = max(merged, key=lambda row: row.measured.mean, default=None)
    values |= accuracy_values(best.measured) if best else {}
    about |= {"best method": best.title} if best else {}
    sections = [Section("Every method", text, rows=rows), Section("In pictures", figures=figures)]
    return Report(title, about, sections, values, data={"comparison": found.to_dict()})
