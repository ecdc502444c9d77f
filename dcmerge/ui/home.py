"""Parts of the home page."""

from __future__ import annotations

import numpy as np
import streamlit as st
import torch

from dcmerge.evaluation import SPLIT_NAMES, Task, stratified_indices
from dcmerge.sets.model_sets import ModelSet
from dcmerge.studies.glossary import term
from dcmerge.ui.shell import PAGES
from dcmerge.vectors.compatibility import Report

THUMBNAILS = 12
_ZOOM = 3


#: What every page is for, by its title in the sidebar.
_ABOUT = {
    "Load": "open your own models, from a folder of checkpoints or adapters",
    "Spectra": "how is the energy of each task vector spread, and what does smoothing change?",
    "Alignment": "where do the experts overlap, and what does the cover basis do?",
    "Merge": "merge live, choose α, see the accuracy on every task",
    "Compare": "many methods on the same images, by accuracy and cost, and why they differ",
    "Tune": "which smoothing, which ρ, which α? A curve with its intervals answers",
    "Diagnose": "which experts go together, which images are lost, which matrices cost which task how much?",
    "Methods": "what each method does, needs and scores",
    "Runs": "everything that was measured, found again and compared",
}


def links_to_pages() -> None:
    """A link to every other page, and beside it, or on a phone below it, what the page is for."""
    for path, title, icon in PAGES[1:]:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.page_link(path, label=f"**{title}**", icon=icon, width=140)
            st.markdown(_ABOUT[title], width="content")


@st.cache_data(max_entries=64, show_spinner=False)
def _strip(_task: Task, key: str) -> np.ndarray:
    """A row of validation images of one task as one picture (H, W, 3)."""
    split = _task.splits["val"]
    images = split.images[stratified_indices(split.labels, THUMBNAILS, seed=1)]
    row = torch.nn.functional.pad(images, (1, 1, 1, 1), value=255).permute(1, 2, 0, 3).reshape(3, images.shape[2] + 2, -1)
    return row.permute(1, 2, 0).repeat_interleave(_ZOOM, 0).repeat_interleave(_ZOOM, 1).numpy()


def task_gallery(models: ModelSet) -> None:
    """One row for each task: its images, classes and sizes; ‖τ‖ of its expert."""
    report = models.vectors.report
    if models.bench is None:
        st.info(
            "This set has no images. Spectra, alignment and merging work; accuracies need images, which the Load page attaches.",
            icon=":material/info:",
        )
        st.dataframe(
            [{"task": task, "‖τ‖": report.delta_norms[task]} for task in report.tasks],
            hide_index=True,
            alt="Experts and the norms of their task vectors",
            column_config={"‖τ‖": st.column_config.NumberColumn(format="%.3g", help=term("size of a task vector"))},
        )
        return
    for name, task in models.bench.tasks.items():
        with st.container(border=True):
            text, pictures = st.columns([2, 3], vertical_alignment="center")
            relative = report.delta_norms[name] / report.base_norm if report.base_norm else None
            text.markdown(f"**{task.title}** · {len(task.classes)} classes")
            sizes = ", ".join(f"{len(split):,} {SPLIT_NAMES.get(key, key)}" for key, split in task.splits.items())
            norm = f"‖τ‖ = {100 * relative:.1f} % of ‖θ₀‖" if relative else f"‖τ‖ = {report.delta_norms[name]:.2f}"
            text.caption(f"{task.description} Images: {sizes}. {norm}.")
            pictures.image(
                _strip(task, f"{models.key}/{name}"), width="stretch", alt=f"{THUMBNAILS} validation images of {task.title}"
            )


def findings_table(report: Report) -> None:
    """Everything that differs within the set, worst first."""
    if not report.findings:
        st.markdown("Nothing to report: no parameter is missing or left out, and shapes and dtypes agree.")
        return
    order = {"error": 0, "warning": 1, "note": 2}
    rows = sorted(report.findings, key=lambda finding: order[finding.level])
    st.dataframe(
        [{"level": f.level, "task": f.task or "all", "what": f.what, "detail": f.text} for f in rows],
        hide_index=True,
        alt="Compatibility report",
    )


def parameter_table(report: Report) -> None:
    """Every parameter with its shape, kind and the reason for it."""
    rows = [
        {"parameter": p.name, "shape": " × ".join(map(str, p.shape)) or "scalar", "kind": p.kind.value, "why": p.reason}
        for p in report.parameters
    ]
    st.dataframe(rows, hide_index=True, height=400, alt="Parameters and their kinds")
