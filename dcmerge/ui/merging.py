"""Merges and evaluations that the pages share: each is computed once per set, method and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dcmerge.evaluation import Evaluation
from dcmerge.model_sets import ModelSet
from dcmerge.recipe import Merged, merge

#: Split of the quick look: α and parameters are tuned on validation images, never on test.
QUICK_SPLIT = "val"


def merged_once(models: ModelSet, slug: str, parameters: Mapping[str, Any]) -> Merged:
    """The merged task vector, from the cache where it was merged before."""
    return _merged(models.name, slug, tuple(sorted(parameters.items())), models)


@st.cache_resource(max_entries=6, show_spinner=False)
def _merged(name: str, slug: str, parameters: tuple[tuple[str, Any], ...], _models: ModelSet) -> Merged:
    return merge(_models.vectors, slug, **dict(parameters))


@dataclass(frozen=True, eq=False)
class QuickLook:
    """Zero-shot, merged and expert accuracies on the same quick subset."""

    zero_shot: Evaluation
    merged: Evaluation
    experts: Evaluation


def quick_look(models: ModelSet, slug: str, parameters: Mapping[str, Any], scale: float, limit: int) -> QuickLook:
    """Merge and evaluate on ``limit`` validation images a task."""
    return _quick_look(models.name, slug, tuple(sorted(parameters.items())), scale, limit, models)


@st.cache_resource(max_entries=64, show_spinner=False)
def _quick_look(
    name: str, slug: str, parameters: tuple[tuple[str, Any], ...], scale: float, limit: int, _models: ModelSet
) -> QuickLook:
    bench, merged = _models.bench, merged_once(_models, slug, dict(parameters))
    weights = bench.merged_weights(merged.deltas, scale)
    quick = {"split": QUICK_SPLIT, "limit": limit}
    experts = bench.experts(**quick, cancelled=_end_if_outdated)
    look = bench.evaluate(weights, slug, **quick, cancelled=_end_if_outdated)
    return QuickLook(bench.zero_shot(**quick), look, experts)


def _end_if_outdated() -> bool:
    """Always False: where a newer run of this page has begun, Streamlit ends the older one as it looks at the state."""
    st.session_state.get("merging")
    return False
