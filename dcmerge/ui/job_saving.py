"""Saving on this machine: a job that writes below the roots, whatever the size, and what it found when it read the file again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from dcmerge import jobs
from dcmerge.checkpoints.paths import reason, shown
from dcmerge.errors import InputError
from dcmerge.merging.recipe import DELTA
from dcmerge.sets.model_sets import roots
from dcmerge.ui import single_jobs
from dcmerge.ui.choice import Choice
from dcmerge.ui.job_buttons import refused
from dcmerge.ui.shell import Page
from dcmerge.ui.text import plain

#: The folder that is offered first, made where it is missing.
_MERGED = "merged"
_KINDS = (jobs.Merge,)
_FILE, _FOLDER = "One file", "Folder with settings and card"
_MARKS = {True: ":material/check:", False: ":material/error:", None: ":material/info:"}


def save_as_job(page: Page, choice: Choice, what: Mapping[str, Any]) -> None:
    """Fields and a button that start the job, its progress, and the result of the newest one. ``what`` as ``copies`` takes it."""
    folders = _folders()
    with st.expander("Save on this machine", icon=":material/save:", key="save.here", expanded=bool(_newest(page))):
        if not folders:
            st.info("None of the folders that this app may use is there yet. Make one, and it is offered here.")
            return
        st.markdown("This runs in the background, for a model of any size. Then the file is read again and checked.")
        left, right = st.columns(2)
        folder = left.selectbox("Folder", folders, key="save.folder", help="The folders that this app may use.")
        name = right.text_input("Name", f"{choice.method.slug}-alpha-{choice.scale.value:g}", key="save.name", max_chars=100)
        kinds = [_FILE] if what["content"] == DELTA else [_FOLDER] if "adapter_rank" in what else [_FILE, _FOLDER]
        kind = st.segmented_control("Write", kinds, default=kinds[0], required=True, key=f"save.kind.{len(kinds)}")
        st.button(
            "Save on this machine",
            key="save.job",
            icon=":material/save:",
            on_click=_start,
            args=(
                page.models.name,
                choice,
                {**what, "mix": page.models.vectors.mix.to_data()},
                folder,
                name.strip(),
                kind == _FILE,
            ),
        )
        if why := refused(single_jobs.REFUSED):
            st.error(plain(why), icon=":material/error:")
        single_jobs.watch(page.models, _KINDS)
        _result(page)


def _folders() -> list[str]:
    """Where a file may be written: "merged" in each root first, then what there is."""
    allowed = roots()
    there = [root for root in allowed.folders if root.is_dir()]
    return [*dict.fromkeys([*(str(root / _MERGED) for root in there), *map(str, allowed.subfolders())])]


def _start(set_name: str, choice: Choice, what: Mapping[str, Any], folder: str, name: str, is_file: bool) -> None:
    """For the button: everything that came from the browser is checked again."""
    try:
        given = {key: value for key, value in what.items() if value is not None}
        jobs.submit(
            {
                "kind": "merge",
                "set": set_name,
                "method": {"slug": choice.method.slug, "parameters": dict(choice.parameters)},
                "scale": choice.scale.value,
                "scale_origin": choice.scale.origin,
                "out": str(_target(folder, f"{name}.safetensors" if is_file else name)),
                **given,
            }
        )
    except InputError as error:
        st.session_state[single_jobs.REFUSED] = str(error)


def _target(folder: str, name: str) -> Path:
    """The path to write, below a root; raises InputError for any other."""
    if not name.removesuffix(".safetensors") or name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
        raise InputError(f"name: expected a name without / and not with a dot in front, got {shown(name)!r}")
    place = Path(folder)
    if folder not in _folders() or not roots().holds(place / name):
        raise InputError(f"folder: expected one of those that this app may use, got {shown(folder)}")
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make {shown(place)}: {reason(error)}.") from None
    return place / name


def _newest(page: Page) -> jobs.Job | None:
    return next(iter(single_jobs.of_set(page.models, _KINDS)), None)


def _result(page: Page) -> None:
    """What the newest save of this set wrote, and what was found when it was read again."""
    job = _newest(page)
    found = job.steps().get("verified") if job else None
    if job is None or not isinstance(job.specification, jobs.Merge) or not isinstance(found, dict):
        return
    out = job.specification.out
    if "error" in found:
        st.warning(plain(f"Saved {out}. It could not be checked: {found['error']}"), icon=":material/info:")
        return
    if found.get("sound"):
        st.success(plain(f"Saved {out} and read it again: nothing is off."), icon=":material/check_circle:")
    else:
        st.error(plain(f"Saved {out}, but something is off."), icon=":material/error:")
    for check in found.get("checks", ()):
        st.markdown(f"{_MARKS[check['ok']]} {plain(str(check['text']))}")
