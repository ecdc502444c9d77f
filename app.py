"""Home: what is loaded, whether it fits together, and where to go next."""

import streamlit as st

from dcmerge.ui.home import findings_table, parameter_table, task_gallery
from dcmerge.ui.shell import start_page

page = start_page(
    "DC-Merge: see and tune model merging",
    "Fine-tuned models that share a base can be merged into one without training. Here you see **why** a merge keeps or loses "
    "what its experts know, and tune it: choose a model set in the sidebar, then walk through the pages from top to bottom.",
    with_layer=False,
)
models = page.models

st.header("Where to go")
with st.container(horizontal=True):
    st.page_link(
        "pages/1_Spectra.py",
        label="**Spectra**: how is each task vector's energy spread, and what does smoothing change?",
        icon=":material/equalizer:",
    )
    st.page_link(
        "pages/2_Alignment.py",
        label="**Alignment**: where do the experts overlap, and what does the cover basis do?",
        icon=":material/grid_on:",
    )
    st.page_link(
        "pages/3_Merge.py", label="**Merge**: merge live, choose α, read the accuracy on every task", icon=":material/merge:"
    )
    st.page_link(
        "pages/4_Compare.py",
        label="**Compare**: methods side by side in the background, by accuracy, cost and cause",
        icon=":material/leaderboard:",
    )
    st.page_link(
        "pages/6_Methods.py",
        label="**Methods**: every method's idea, formula, needs, parameters and numbers",
        icon=":material/menu_book:",
    )

st.header("What is loaded")
report = models.vectors.report
counts = report.counts()
with st.container(horizontal=True):
    st.metric("Experts", len(report.tasks), border=True, help="Models fine-tuned from the base, one per task.")
    st.metric(
        "Kind",
        "LoRA" if models.vectors.kind == "lora" else "full",
        border=True,
        help="full: every weight was fine-tuned. LoRA: low-rank adapters B·A beside frozen weights.",
    )
    if models.vectors.qkv != "none":
        st.metric(
            "q, k and v",
            models.vectors.qkv,
            border=True,
            help="How the files give attention's q, k and v: fused in one matrix (open_clip) or split into three (Hugging "
            "Face). Merging them split or fused is not the same: the command line's --qkv chooses.",
        )
    st.metric(
        "Matrices", counts["matrix"], border=True, help="2-D weights: these have spectra and go through the spectral methods."
    )
    st.metric(
        "Other tensors",
        counts["vector"] + counts["convolution"],
        border=True,
        help="Biases, norms, convolutions: spectral methods average them.",
    )
    st.metric(
        "Numbers", f"{sum(p.numel for p in report.parameters) / 1e6:.1f} M", border=True, help="Entries of one task vector."
    )

if report.warnings:
    st.warning(f"{len(report.warnings)} findings need a look: see the report below.", icon=":material/warning:")
else:
    st.success(
        "Base and experts fit together: same names, same shapes, no NaN or Inf, no two equal experts.",
        icon=":material/check_circle:",
    )

st.header("Tasks")
task_gallery(models)

st.header("Report")
findings_table(report)
with st.expander("Every parameter and how it is treated"):
    parameter_table(report)
