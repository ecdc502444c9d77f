"""The damage map: what every matrix of a merged model costs or gives each task, by putting it back."""

from dcmerge.studies.damage.found import BASE, CHANGES, EXPERT, WITHOUT, Change, DamageMap, paired_change
from dcmerge.studies.damage.plan import BLOCKS, MATRICES, Plan, Units, units_of

__all__ = [
    "BASE",
    "BLOCKS",
    "CHANGES",
    "EXPERT",
    "MATRICES",
    "WITHOUT",
    "Change",
    "DamageMap",
    "Plan",
    "Units",
    "paired_change",
    "units_of",
]
