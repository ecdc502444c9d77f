"""Will it merge? What the weights alone say of every pair of experts, before anything is merged."""

from dcmerge.studies.verdict.found import PairFacts, PairVerdict, Verdict
from dcmerge.studies.verdict.measuring import verdict, verdicts
from dcmerge.studies.verdict.words import (
    CONFLICT,
    DEAD,
    DROWNS,
    DUPLICATE,
    INDEPENDENT,
    MEANINGS,
    REINFORCING,
    TROUBLE,
    WORDS,
)

__all__ = [
    "CONFLICT",
    "DEAD",
    "DROWNS",
    "DUPLICATE",
    "INDEPENDENT",
    "MEANINGS",
    "REINFORCING",
    "TROUBLE",
    "WORDS",
    "PairFacts",
    "PairVerdict",
    "Verdict",
    "verdict",
    "verdicts",
]
