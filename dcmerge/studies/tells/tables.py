"""A study as rows: for a table, a CSV file, or JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from dcmerge.methods.declare import values_text
from dcmerge.runs.tables import as_csv as csv_text
from dcmerge.studies.tells.found import SCOPES, Regret, Study, sentence
from dcmerge.studies.tells.measures import MEASURES


def rows(study: Study) -> list[dict[str, Any]]:
    """One row a merge, α and task: normalised accuracy in percent, and every measure as it was measured."""
    return [
        {
            "merge": look.setting.number,
            "method": look.setting.slug,
            "parameters": values_text(look.setting.parameters),
            "experts": len(look.setting.tasks),
            "alpha": row.alpha,
            "task": task,
            "normalised accuracy": round(100 * accuracy, 2),
            **{name: row.measures.get(name, {}).get(task) for name in study.measures},
        }
        for look in study.merged
        for row in look.rows
        for task, accuracy in row.accuracy.items()
    ]


def as_csv(study: Study) -> str:
    """``rows`` as CSV."""
    return csv_text(rows(study))


def to_data(study: Study) -> dict[str, Any]:
    """Everything that was found, as plain data; accuracies and regrets in percent or points, correlations from -1 to 1."""
    best, alpha, accuracy = study.choice(None)
    return {
        "plan": asdict(study.plan),
        "merges": len(study.merged),
        "failed": {look.setting.label: look.error for look in study.looks if look.error},
        "measures": {name: MEASURES[name].about for name in study.measures},
        "scopes": {scope: _scope(study, scope) for scope in SCOPES},
        "best by labels": {"merge": best.label, "alpha": alpha, "normalised accuracy": round(100 * accuracy, 2)},
        "rows": rows(study),
    }


def _scope(study: Study, scope: str) -> dict[str, Any]:
    return {
        "question": SCOPES[scope],
        "told": sentence(study, scope),
        "regret of chance": _points(study.chance(scope)),
        "measures": [
            {
                "measure": name,
                "word": study.word(name, scope),
                "over all tasks": _correlation(study, name, None, scope),
                "tasks": {task: _correlation(study, name, task, scope) for task in study.tasks},
                "regret": _points(study.regret(name, scope)),
            }
            for name in study.measures
        ],
    }


def _correlation(study: Study, measure: str, task: str | None, scope: str) -> dict[str, Any] | None:
    found = study.correlation(measure, task, scope)
    if found is None:
        return None
    data = {"value": found.value, "low": found.low, "high": found.high, "null": list(found.null), "rows": found.rows}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in data.items()}


def _points(regret: Regret | None) -> dict[str, float] | None:
    return regret and {name: round(100 * value, 2) for name, value in asdict(regret).items()}
