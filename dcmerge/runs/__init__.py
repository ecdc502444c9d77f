"""Runs that stay: what was measured, how, and which images were right, in one store on disk.

from dcmerge.runs import Run, RunStore
store = RunStore()
store.find(set="demo", kind="point", limit=20)
store.paired(first.id, second.id)
"""

from dcmerge.runs.run import COMPARISON, EVALUATION, KINDS, LOOK, POINT, Run, SetId, images_of
from dcmerge.runs.store import RunStore, paired

__all__ = ["COMPARISON", "EVALUATION", "KINDS", "LOOK", "POINT", "Run", "RunStore", "SetId", "images_of", "paired"]
