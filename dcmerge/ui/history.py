"""The runs of this session: what was merged, how, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from dcmerge.evaluation import Evaluation, Scale
from dcmerge.methods import method

_RUNS = "history.runs"
MAX_RUNS = 100


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluated merge. ``scale.origin`` says where α came from."""

    models: str
    slug: str
    parameters: Mapping[str, Any]
    scale: Scale
    evaluation: Evaluation
    at: datetime

    @property
    def key(self) -> tuple:
        return (self.models, self.slug, tuple(self.parameters.items()), self.scale.value, self.evaluation.measured_on)

    @property
    def changed(self) -> str:
        """The parameters that are not the method's defaults."""
        defaults = method(self.slug).defaults()
        changed = {name: value for name, value in self.parameters.items() if value != defaults[name]}
        return ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in changed.items())

    @property
    def label(self) -> str:
        return f"{method(self.slug).title} {f'({self.changed}) ' if self.changed else ''}α={self.scale.value:g}"


def record(run: Run) -> None:
    """Add a run, newest first; the same configuration on the same images is kept once."""
    runs = [known for known in st.session_state.get(_RUNS, []) if known.key != run.key]
    st.session_state[_RUNS] = [run, *runs][:MAX_RUNS]


def runs(models: str) -> list[Run]:
    """This session's runs on one set, newest first."""
    return [run for run in st.session_state.get(_RUNS, []) if run.models == models]
