"""The runs of this session: what was merged, how, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from dcmerge import plots
from dcmerge.evaluation import Evaluation, Scale, paired_difference
from dcmerge.methods import method
from dcmerge.studies.glossary import term
from dcmerge.ui.charts import show
from dcmerge.ui.shell import Page
from dcmerge.ui.text import hundredfold, plain

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
    def label(self) -> str:
        return described(self.slug, self.parameters, self.scale.value)


def changed(slug: str, parameters: Mapping[str, Any]) -> str:
    """The parameters that are not the method's defaults."""
    defaults = method(slug).defaults()
    texts = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in parameters.items()}
    return ", ".join(f"{name}={texts[name]}" for name, value in parameters.items() if value != defaults[name])


def described(slug: str, parameters: Mapping[str, Any], scale: float) -> str:
    """Method, changed parameters and α in one line."""
    other = changed(slug, parameters)
    return f"{method(slug).title} {f'({other}) ' if other else ''}α={scale:g}"


def record(run: Run) -> None:
    """Add a run, newest first; the same configuration on the same images is kept once."""
    runs = [known for known in st.session_state.get(_RUNS, []) if known.key != run.key]
    st.session_state[_RUNS] = [run, *runs][:MAX_RUNS]


def runs(models: str) -> list[Run]:
    """This session's runs on one set, newest first."""
    return [run for run in st.session_state.get(_RUNS, []) if run.models == models]


def history_card(page: Page) -> None:
    """All runs of this session on this set; two picked ones are compared."""
    known = runs(page.models.key)
    if not known:
        return
    with st.container(border=True):
        st.subheader("Runs of this session")
        st.markdown("Select two rows to compare them task by task.")
        rows = [
            {
                "time": run.at.strftime("%H:%M:%S"),
                "method": method(run.slug).title,
                "parameters": changed(run.slug, run.parameters) or "defaults",
                "α": run.scale.value,
                "α from": run.scale.origin,
                "absolute": 100 * run.evaluation.mean,
                "normalised": hundredfold(run.evaluation.mean_normalised),
                "joint": hundredfold(run.evaluation.joint_mean),
                "worst task": 100 * run.evaluation.worst.accuracy,
                "measured on": run.evaluation.measured_on,
            }
            for run in known
        ]
        picked = st.dataframe(
            rows,
            hide_index=True,
            key="merge.history",
            on_select="rerun",
            selection_mode="multi-row",
            column_config=_columns(),
            alt="Runs of this session",
            height=min(300, 38 + 35 * len(rows)),
        ).selection.rows
        if len(picked) == 2:
            _compare(page, known[picked[0]], known[picked[1]])
        elif len(picked) > 2:
            st.info("Only two runs can be compared at a time. Unselect one.", icon=":material/info:")


def _columns() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "absolute": number(format="%.1f %%", help=term("accuracy")),
        "normalised": number(format="%.1f %%", help=term("normalised accuracy")),
        "joint": number(format="%.1f %%", help=term("joint accuracy")),
        "worst task": number(format="%.1f %%", help=term("worst task")),
        "α": number(help=term("α")),
        "α from": text(help="Whether α was set by hand or found on validation images."),
    }


def _compare(page: Page, first: Run, second: Run) -> None:
    if first.evaluation.measured_on != second.evaluation.measured_on:
        st.info(
            "These two were measured on different images. Measure both on the same ones to compare them.",
            icon=":material/info:",
        )
        return
    difference = paired_difference(first.evaluation, second.evaluation)
    verdict = "This is a real difference" if difference.excludes_zero else "These images show no difference"
    st.markdown(
        f"**{plain(first.label)}** minus **{plain(second.label)}**: {100 * difference.value:+.1f} points, 95 % interval "
        f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}. {verdict}.",
        help=term("paired bootstrap"),
    )
    show(
        plots.comparison_bars([(first.label, first.evaluation), (second.label, second.evaluation)], page.models.task_titles),
        "each pair of bars is one task, measured on the same images. The whiskers are the 95 % interval of each.",
        key="merge.compare",
        terms=("accuracy", "interval"),
    )
