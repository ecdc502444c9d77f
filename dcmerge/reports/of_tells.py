"""The report of a study of what tells: which measures say how accurate a merge is, and what choosing by them costs."""

from __future__ import annotations

from collections.abc import Mapping

from dcmerge.plots.tells import correlation_figure, regret_figure
from dcmerge.reports.model import Figure, Report, Section
from dcmerge.studies.tells import ALL, MEASURES, SCOPES, Study
from dcmerge.studies.tells.found import sentence
from dcmerge.studies.tells.tables import rows, to_data


def report_of_study(found: Study, title: str, repeat: Mapping[str, str] | None = None) -> Report:
    """``title`` names the set; ``repeat``: commands that make it again, by title."""
    best, alpha, accuracy = found.choice(None)
    about = {
        "merges": str(len(found.merged)),
        "images": f"{found.plan.limit} validation images a task with labels, {found.plan.unlabeled} others without",
        "best by labels": f"{best.label}, α = {alpha:g}, {100 * accuracy:.1f} % normalised",
        **{name: MEASURES[name].about for name in found.measures},
    }
    values = {"merges": float(len(found.merged)), "best": accuracy}
    for name in found.measures:
        for scope in SCOPES:
            before = "" if scope == ALL else f"{scope}."
            values |= {f"{before}{name}.correlation": one.value} if (one := found.correlation(name, None, scope)) else {}
            values |= {f"{before}{name}.regret": cost.value} if (cost := found.regret(name, scope)) else {}
    sections = [*(_section(found, scope) for scope in SCOPES), Section("Every merge, α and task", rows=rows(found))]
    return Report(title, about, sections, values, repeat or {}, {"tells": to_data(found)})


def _section(found: Study, scope: str) -> Section:
    reading = "at +1 the measure puts the merges in the order of their accuracy. Inside the grey band it could be chance."
    figures = [Figure(correlation_figure(found, scope), reading)]
    reading = "how many points you lose when you take what the measure prefers. The dashed line is a blind choice."
    figures.append(Figure(regret_figure(found, scope), reading))
    return Section(f"{SCOPES[scope][0].upper()}{SCOPES[scope][1:]}", sentence(found, scope), figures)
