"""One table of all matrices: what the experts changed there, and what a merge kept, by matrix and task."""

from dcmerge.studies.layer_table.found import COLUMNS, DAMAGE, DIRSIM, DRIFT, OF_MERGE, OF_SET, LayerTable
from dcmerge.studies.layer_table.measuring import columns_of_set, of_damage, of_drift, of_merge, of_set

__all__ = [
    "COLUMNS",
    "DAMAGE",
    "DIRSIM",
    "DRIFT",
    "OF_MERGE",
    "OF_SET",
    "LayerTable",
    "columns_of_set",
    "of_damage",
    "of_drift",
    "of_merge",
    "of_set",
]
