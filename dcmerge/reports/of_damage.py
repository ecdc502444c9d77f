"""The report of a damage map: where a merge hurts, and what repairs gain."""

from __future__ import annotations

from collections.abc import Mapping

from dcmerge.plots import damages
from dcmerge.reports.model import Figure, Report, Section
from dcmerge.studies.damage import CHANGES, DamageMap
from dcmerge.studies.damage.tables import rows, to_data


def report_of_damage(found: DamageMap, title: str, titles: Mapping[str, str] | None = None) -> Report:
    """``title`` names set and method."""
    named = titles or {task: task for task in found.tasks}
    sections = []
    for change in found.changed:
        reading = "each square is one part of the model. Faint squares lie within the noise: their 95 % interval holds 0."
        figures = [Figure(damages.map_figure(found, change, named), reading)]
        reading = "where the sum is larger than all at once, the parts do the same work. Where it is smaller, they hurt together."
        figures.append(Figure(damages.sums_figure(found, change, named), reading))
        sections.append(Section(f"Each part {CHANGES[change]}", figures=figures))
    if found.repaired:
        reading = "each dot repairs so many of the best parts with every task's own expert, chosen on other images."
        sections.append(Section("Repairs", figures=[Figure(damages.repair_figure(found), reading)]))
    text = "Accuracy after the change minus that of the merge, in percentage points."
    cells = rows(found)
    sections.append(Section("Every cell", text, rows=cells))
    about = {"images": f"{found.images} images a task, {found.split} split", "α": f"{found.scale:g} ({found.scale_origin})"}
    merged = sum(own.double().mean().item() for own in found.merged.values()) / len(found.tasks)
    values = {"mean": merged}
    for change in found.changed:
        own = [cell["points"] / 100 for cell in cells if cell["change"] == change]
        values |= {f"{change}.largest": max(own), f"{change}.least": min(own)}
    return Report(title, about, sections, values, data={"damage": to_data(found)})
