"""Taking a merged model along: as a file with its recipe, or as a text that makes it again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import streamlit as st

from dcmerge.ui.choice import Choice
from dcmerge.ui.copying import copies
from dcmerge.ui.merging import merged_once
from dcmerge.ui.shell import Page

_DOWNLOAD_LIMIT = 500 << 20


def save_card(page: Page, choice: Choice) -> None:
    """Download the merged model, or copy what makes it again."""
    with st.container(border=True):
        st.subheader("Take it with you")
        size = sum(info.nbytes for info in page.models.vectors.base.infos.values()) if page.models.vectors.base else 0
        st.markdown("The merged model in the base's own names and dtypes, with its recipe (inputs and their hashes, method, "
                    "parameters, α and where it came from) in the file's metadata.")  # fmt: skip
        task = _task(page, choice)
        if size and size <= _DOWNLOAD_LIMIT:
            whose = f"-{task}" if task else ""
            name = f"{choice.method.slug}{whose}-alpha-{choice.scale.value:g}.safetensors"
            st.download_button("Save merged model", data=lambda: _file(page, choice, task), file_name=name,
                               icon=":material/download:", mime="application/octet-stream", on_click="ignore",
                               help=f"safetensors, about {size / 1e6:.0f} MB")  # fmt: skip
        else:
            st.info("Too large for a browser download: run the command below.", icon=":material/info:")
        copies(page, choice, task, small=size <= _DOWNLOAD_LIMIT)


def _task(page: Page, choice: Choice) -> str | None:
    """Whose model is saved, where the method makes one for each task."""
    if not choice.method.modules:
        return None
    titles = page.models.task_titles
    return st.selectbox("Whose model", list(titles), key="save.task", format_func=titles.get,
                        help="This method makes a model for each task; a file holds one of them.")  # fmt: skip


def _file(page: Page, choice: Choice, task: str | None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merged.safetensors"
        merged = merged_once(page.models, choice.method.slug, choice.parameters)
        merged.save(path, scale=choice.scale.value, scale_origin=choice.scale.origin, task=task)
        return path.read_bytes()
