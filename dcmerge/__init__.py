"""Understand and tune model merging: task vectors, their spectra and alignment, merging methods, and accuracies.

import dcmerge
vectors = dcmerge.TaskVectors.open(base="base.safetensors", experts={"mnist": "mnist.safetensors", "dtd": "dtd/"})
merged = dcmerge.merge(vectors, "dc_merge", smoothing="linear", rho=5.0)
merged.save("merged.safetensors", scale=0.8)
"""

from dcmerge.errors import Cancelled, IncompatibleSet, InputError
from dcmerge.merging.merge import Merged, merge, merge_to, merge_to_file
from dcmerge.merging.output import Target, Written
from dcmerge.merging.recipe import Recipe
from dcmerge.methods import load_plugin, merging_method, methods
from dcmerge.methods.declare import Choice, Flag, Number
from dcmerge.vectors.fit import Fit
from dcmerge.vectors.layers import Layer
from dcmerge.vectors.mix import Mix
from dcmerge.vectors.task_vectors import TaskVectors

__all__ = [
    "Cancelled",
    "Choice",
    "Fit",
    "Flag",
    "IncompatibleSet",
    "InputError",
    "Layer",
    "Merged",
    "Mix",
    "Number",
    "Recipe",
    "Target",
    "TaskVectors",
    "Written",
    "load_plugin",
    "merge",
    "merge_to",
    "merge_to_file",
    "merging_method",
    "methods",
]
__version__ = "0.1.0"
