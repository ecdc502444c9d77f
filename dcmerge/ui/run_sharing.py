"""Runs to take along, and other people's runs to take in."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.reports import report_of_runs
from dcmerge.runs import Run, RunStore
from dcmerge.runs.sharing import RUNS, files_of, import_runs, parsed_runs
from dcmerge.runs.tables import as_csv, as_parquet, table
from dcmerge.ui.reporting import report_button
from dcmerge.ui.text import plain

_FOLDER = "dcmerge-runs"
#: More runs make no picture that anybody reads.
_REPORTED = 12


def sharing_card(runs: Sequence[Run]) -> None:
    """Downloads of these runs, made when they are asked for, and a place to put a file of runs."""
    with st.container(border=True):
        st.subheader("Take along and take in")
        if runs:
            st.markdown(f"The {len(runs)} runs above: those that you selected, else all that match.")
            with st.container(horizontal=True):
                _download("CSV", "runs.csv", "text/csv", lambda: as_csv(table(runs)))
                _download("Parquet", "runs.parquet", "application/vnd.apache.parquet", lambda: as_parquet(table(runs)))
                _download("Folder for another person (zip)", f"{_FOLDER}.zip", "application/zip", lambda: _zipped(runs))
                if len(runs) <= _REPORTED:
                    report_button(lambda: report_of_runs(runs), "runs", "runs.report")
        st.caption(
            "`python -m dcmerge runs` reads and writes the same runs in a terminal, and sends them to MLflow or Trackio. "
            "A folder for another person holds no paths of this machine."
        )
        _import()


def _download(label: str, name: str, mime: str, make: Any) -> None:
    st.download_button(label, make, file_name=name, mime=mime, icon=":material/download:", on_click="ignore", width="content")


def _zipped(runs: Sequence[Run]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files_of(runs, _FOLDER).items():
            archive.writestr(f"{_FOLDER}/{name}", text)
    return content.getvalue()


def _import() -> None:
    with st.form("runs.import", border=False, clear_on_submit=True):
        given = st.file_uploader(f"Runs of another person: the file {RUNS} of their folder", type="jsonl", max_upload_size=100)
        if not st.form_submit_button("Take in", icon=":material/upload:") or given is None:
            return
    try:
        found = list(parsed_runs(iter(given), given.name))
        new = import_runs(found, RunStore())
    except InputError as error:
        st.error(plain(str(error)), icon=":material/error:")
    else:
        st.success(f"Read {len(found)} runs, {new} of them new. Reload the page to see them.", icon=":material/check_circle:")
