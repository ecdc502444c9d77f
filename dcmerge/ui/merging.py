"""Merges and evaluations that the pages share: each is computed once per set, method and parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dcmerge.evaluation import Evaluation
from dcmerge.evaluation.precision import EXACT, LookPrecision, look_precision
from dcmerge.merging.merge import Merged, merge
from dcmerge.runtime.limits import give_back_memory
from dcmerge.sets.model_sets import ModelSet
from dcmerge.ui.background import BACKGROUND
from dcmerge.ui.held import MERGED

#: Split of the quick look: α and parameters are tuned on validation images, never on test.
QUICK_SPLIT = "val"


def merged_once(models: ModelSet, slug: str, parameters: Mapping[str, Any]) -> Merged:
    """The merged task vector, from the cache where it was merged before."""
    key = (models.key, slug, tuple(sorted(parameters.items())))

    def merging() -> Merged:
        try:
            return merge(models.vectors, slug, bench=models.bench, **parameters)
        finally:
            give_back_memory()  # a whole model's passing matrices: the allocator would hold them

    with BACKGROUND.first():
        return MERGED.get(key, merging, worth=0)


@dataclass(frozen=True, eq=False)
class Look:
    """Zero-shot, merged and expert accuracies on the same images, and the seconds that the merged model's took.

    The merged model's are in the look's ``precision``, the other two in float32.
    """

    zero_shot: Evaluation
    merged: Evaluation
    experts: Evaluation
    seconds: float
    precision: LookPrecision = EXACT

    @property
    def pace(self) -> float:
        """Seconds an image in float32."""
        return self.precision.pace * self.seconds / sum(task.images for task in self.merged.tasks.values())


def look_at(
    models: ModelSet,
    slug: str,
    parameters: Mapping[str, Any],
    scale: float,
    *,
    split: str,
    limit: int | None = None,
    precision: LookPrecision = EXACT,
    cancelled: Callable[[], bool] | None = None,
) -> Look:
    """Merge and evaluate on one split, beside the base and the experts, whose rows the bench remembers."""
    bench, merged = models.images, merged_once(models, slug, parameters)
    images: dict[str, Any] = {"split": split, "limit": limit, "cancelled": cancelled}
    zero_shot, experts = bench.zero_shot(**images), bench.experts(**images)
    started = time.perf_counter()
    found = bench.evaluate(merged.model(bench, scale), slug, dtype=precision.dtype, **images)
    return Look(zero_shot, found, experts, time.perf_counter() - started, precision)


def quick_look(models: ModelSet, slug: str, parameters: Mapping[str, Any], scale: float, limit: int) -> Look:
    """Merge and evaluate on ``limit`` validation images a task, in the arithmetic of looks; each combination is computed once."""
    return _quick_look(models.key, slug, tuple(sorted(parameters.items())), scale, limit, models)


@st.cache_resource(max_entries=64, show_spinner=False)
def _quick_look(
    key: str, slug: str, parameters: tuple[tuple[str, Any], ...], scale: float, limit: int, _models: ModelSet
) -> Look:
    how: dict[str, Any] = {"precision": look_precision(), "cancelled": _end_if_outdated}
    with BACKGROUND.first():
        return look_at(_models, slug, dict(parameters), scale, split=QUICK_SPLIT, limit=limit, **how)


def _end_if_outdated() -> bool:
    """Always False: where a newer run of this page has begun, Streamlit ends the older one as it looks at the state."""
    st.session_state.get("merging")
    return False
