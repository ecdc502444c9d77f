"""The first task arithmetic, AdaMerging: MODEL/zeroshot.pt, MODEL/<Dataset>/finetuned.pt, MODEL/head_<Dataset>.pt.

As published they are pickled modules, which are never opened: such a set asks for ``dcmerge convert`` first. A converted file
``finetuned.safetensors`` beside ``finetuned.pt`` is used in its place.
"""

from __future__ import annotations

from dcmerge.sets.layouts.datasets import model_folders
from dcmerge.sets.layouts.found import FoundSet
from dcmerge.sets.layouts.view import View


def find(view: View) -> list[FoundSet]:
    """One set for each model's folder."""
    words = "Task vectors, old layout, of"
    return [model.found(view, "old_task_vectors", words) for model in model_folders(view) if model.is_old]
