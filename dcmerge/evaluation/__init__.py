"""Accuracy of a model on tasks: images, frozen heads, encoders, intervals, and the choice of the scale α."""

from dcmerge.evaluation.accuracy import (
    SPLIT_NAMES,
    Difference,
    Evaluation,
    TaskAccuracy,
    paired_difference,
    weak_experts,
    wilson_interval,
)
from dcmerge.evaluation.bench import EXPERTS, ZERO_SHOT, Bench
from dcmerge.evaluation.drift import Drift, feature_drift
from dcmerge.evaluation.encoders import Edit, ImageEncoder, Preprocess
from dcmerge.evaluation.models import Assembly, Model, TaskModule
from dcmerge.evaluation.scales import Scale, choose_scale
from dcmerge.evaluation.tasks import Split, Task, stratified_indices
from dcmerge.evaluation.temperature import LogitScale

__all__ = [
    "EXPERTS",
    "SPLIT_NAMES",
    "ZERO_SHOT",
    "Assembly",
    "Bench",
    "Difference",
    "Drift",
    "Edit",
    "Evaluation",
    "ImageEncoder",
    "LogitScale",
    "Model",
    "Preprocess",
    "Scale",
    "Split",
    "Task",
    "TaskAccuracy",
    "TaskModule",
    "choose_scale",
    "feature_drift",
    "paired_difference",
    "stratified_indices",
    "weak_experts",
    "wilson_interval",
]
