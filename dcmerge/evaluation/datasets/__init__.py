"""Labelled images on disk: the data sets of the literature, class folders, Hugging Face data sets, and their splits."""

from dcmerge.evaluation.datasets.known import DATA_SETS, KnownDataSet, known_data_set
from dcmerge.evaluation.datasets.opening import NO_IMAGES, Opened, open_data_set
from dcmerge.evaluation.datasets.pictures import LazySplits, Pictures
from dcmerge.evaluation.datasets.splits import SPLIT_RULES, divide
from dcmerge.evaluation.datasets.templates import prompts

__all__ = [
    "DATA_SETS",
    "NO_IMAGES",
    "SPLIT_RULES",
    "KnownDataSet",
    "LazySplits",
    "Opened",
    "Pictures",
    "divide",
    "known_data_set",
    "open_data_set",
    "prompts",
]
