"""Does it tell? Whether what can be measured without labels says which merge is accurate, over many merges of one set."""

from dcmerge.studies.tells.found import ALL, ALPHAS, MERGES, SCOPES, Correlation, Regret, Study
from dcmerge.studies.tells.looks import Look, Row
from dcmerge.studies.tells.measures import MEASURES, Measure
from dcmerge.studies.tells.plan import Plan, Setting, settings

__all__ = [
    "ALL",
    "ALPHAS",
    "MEASURES",
    "MERGES",
    "SCOPES",
    "Correlation",
    "Look",
    "Measure",
    "Plan",
    "Regret",
    "Row",
    "Setting",
    "Study",
    "settings",
]
