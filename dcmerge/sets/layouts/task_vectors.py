"""TALL-masks, TSV, Iso and DC-Merge's full fine-tuning: MODEL/<Dataset>Val/nonlinear_finetuned.pt and nonlinear_zeroshot.pt.

The base lies beside every expert; the copies are compared and one is used. Heads: MODEL/head_<Dataset>Val.pt.
"""

from __future__ import annotations

from dcmerge.sets.layouts.datasets import model_folders
from dcmerge.sets.layouts.found import FoundSet
from dcmerge.sets.layouts.view import View


def find(view: View) -> list[FoundSet]:
    """One set for each model's folder."""
    return [model.found(view, "task_vectors", "Task vectors of") for model in model_folders(view) if not model.is_old]
