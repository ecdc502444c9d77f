"""Home: what is loaded, whether it fits together, and where to go next."""

import streamlit as st

from dcmerge.studies.glossary import explained, term
from dcmerge.ui.home import findings_table, links_to_pages, parameter_table, task_gallery
from dcmerge.ui.reached import reached_card
from dcmerge.ui.shell import start_page

page = start_page(
    "DC-Merge: see and tune model merging",
    "Models that were fine-tuned from the same base can be merged into one without training. Here you see **why** a merge keeps "
    "or loses what its experts know, and you tune it. Choose a model set in the sidebar, then go through the pages from top to "
    "bottom.",
    with_layer=False,
)
models = page.models

reached_card(page)

st.header("Where to go")
links_to_pages()

st.header("What is loaded")
report = models.vectors.report
counts = report.counts()
with st.container(horizontal=True):
    st.metric("Experts", len(report.tasks), border=True, help=term("expert"))
    st.metric(
        "Kind",
        "LoRA" if models.vectors.kind == "lora" else "full",
        border=True,
        help=f"full: every weight was fine-tuned.\n\nLoRA: {term('LoRA adapter')}",
    )
    if models.vectors.qkv != "none":
        st.metric(
            "q, k and v",
            models.vectors.qkv,
            border=True,
            help=f"{term('q, k and v')} You choose on the Load page.",
        )
    st.metric("Matrices", counts["matrix"], border=True, help=term("matrix"))
    st.metric(
        "Other tensors",
        counts["vector"] + counts["convolution"],
        border=True,
        help=term("other tensors"),
    )
    st.metric(
        "Numbers",
        f"{sum(p.numel for p in report.parameters) / 1e6:.1f} M",
        border=True,
        help=f"In one task vector. {term('task vector')}",
    )

if report.warnings:
    count = len(report.warnings)
    st.warning(f"{count} finding{'s' if count > 1 else ''} to check: see the report below.", icon=":material/warning:")
else:
    st.success(
        "Base and experts fit together. All names and shapes agree, no value is NaN or Inf, and no two experts are equal.",
        icon=":material/check_circle:",
    )

st.header("Tasks", help=explained("size of a task vector", "head"))
task_gallery(models)

st.header("Report", help="What does not fit in this set, and what is not merged.")
findings_table(report)
with st.expander("Every parameter and how it is merged"):
    parameter_table(report)
