"""Understand and tune model merging: task vectors, their spectra and alignment, merging methods, and accuracies.

import dcmerge
vectors = dcmerge.TaskVectors.open(base="base.safetensors", experts={"mnist": "mnist.safetensors", "dtd": "dtd/"})
merged = dcmerge.merge(vectors, "dc_merge", smoothing="linear", rho=5.0)
merged.save("merged.safetensors", scale=0.8)
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

#: Where each name lives. They are imported when they are asked for: the command line answers --help without torch.
_HOMES = {
    "Cancelled": "dcmerge.errors",
    "Choice": "dcmerge.methods.declare",
    "Fit": "dcmerge.vectors.fit",
    "Flag": "dcmerge.methods.declare",
    "IncompatibleSet": "dcmerge.errors",
    "InputError": "dcmerge.errors",
    "Layer": "dcmerge.vectors.layers",
    "Merged": "dcmerge.merging.merge",
    "Mix": "dcmerge.vectors.mix",
    "Number": "dcmerge.methods.declare",
    "Recipe": "dcmerge.merging.recipe",
    "Target": "dcmerge.merging.output",
    "TaskVectors": "dcmerge.vectors.task_vectors",
    "Written": "dcmerge.merging.output",
    "load_plugin": "dcmerge.methods",
    "merge": "dcmerge.merging.merge",
    "merge_to": "dcmerge.merging.merge",
    "merge_to_file": "dcmerge.merging.merge",
    "merging_method": "dcmerge.methods",
}


class _Door(ModuleType):
    """This module: a name is imported at its first use."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'dcmerge' has no attribute {name!r}")
        found = getattr(import_module(_HOMES[name]), name)
        setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})

    @property
    def methods(self) -> Any:
        """Every merging method by slug. The import system would put the package of that name here, whose rooms are its own."""
        return import_module("dcmerge.methods").methods

    @methods.setter
    def methods(self, package: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Door
