"""The Load page: the set as a person puts it together: base, experts, and images where accuracies are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import streamlit as st

from dcmerge.checkpoints.hub import name_in_cache
from dcmerge.checkpoints.regrouped import QKV, STORED
from dcmerge.checkpoints.schemes import NONE, stored_qkv
from dcmerge.errors import InputError
from dcmerge.sets.layouts import FoundSet, peek
from dcmerge.sets.model_sets import roots
from dcmerge.sets.saved_sets import SavedSet
from dcmerge.studies.glossary import term
from dcmerge.ui.shell import readable_errors
from dcmerge.vectors.fit import Fit

_NO_BASE = "none: the adapters alone"


@dataclass(frozen=True)
class Draft:
    """A set as it is being put together."""

    name: str
    base: Path | None
    experts: Mapping[str, Path]
    qkv: str = STORED
    bench: Mapping[str, Any] = field(default_factory=dict)
    fit: Fit = field(default_factory=Fit)

    def to_save(self, name: str) -> SavedSet:
        base = None if self.base is None else _called(self.base)
        experts = {task: _called(path) for task, path in self.experts.items()}
        return SavedSet(name.strip(), base, experts, self.qkv, self.bench, self.fit.to_data())


def _called(path: Path) -> str:
    """A model of the hub by its name and commit, anything else by its path."""
    return name_in_cache(path) or str(path)


def draft_of(found: FoundSet) -> Draft:
    """Base, and the experts with their task names, as a person left them."""
    st.header("3. Base and experts")
    allowed = roots()
    elsewhere = (allowed.resolve(name) for name in allowed.checkpoints())
    options: list[Path | None] = [*dict.fromkeys([*found.checkpoints, *([None] if found.is_lora else []), *elsewhere])]
    key = f"{found.folder}.{found.layout}"
    base = st.selectbox(
        "Base",
        options,
        key=f"load.base.{key}",
        index=options.index(found.base) if found.base in options else 0,
        format_func=lambda path: _NO_BASE if path is None else _called(path),
        help=f"{term('base')} Choose one of these files, or another checkpoint in the folders that this app may read.",
    )
    experts = found.with_base(base).experts
    rows = [
        {
            "merge": True,
            "task": task,
            "checkpoint": _called(path),
            "size, MB": round(peek(path).size / 1e6, 1),
            "head": task in found.heads,
        }
        for task, path in experts.items()
    ]
    column = st.column_config
    edited = st.data_editor(
        rows,
        key=f"load.experts.{key}.{base}",
        hide_index=True,
        disabled=["checkpoint", "size, MB", "head"],
        column_config={
            "merge": column.CheckboxColumn(help="Untick an expert to leave it out."),
            "task": column.TextColumn(help="The name of the task on all pages. The name of a data set finds its images."),
            "head": column.CheckboxColumn(help=f"Whether a head file for this task was found. {term('head')}"),
        },
    )
    st.caption("**How to read:** each row is an expert. Double-click its task to rename it, untick it to leave it out.")
    # By its place: what a browser sends back of a column that cannot be edited is not a path to open.
    chosen = [(row["task"], path) for row, path in zip(edited, experts.values(), strict=True) if row["merge"]]
    with readable_errors():
        named = _by_task(chosen)
        qkv = _qkv_choice(base, named, key)
        return Draft(
            "from the hub" if name_in_cache(found.folder) else found.folder.name, base, named, qkv, fit=_fit_choice(found, key)
        )


def _fit_choice(found: FoundSet, key: str) -> Fit:
    """Which parameters are merged, where the files do not all have the same."""
    with st.expander("What is merged", icon=":material/filter_alt:"):
        st.markdown(
            "What is common to the base and all experts is merged, tied weights once. The report below says what is left out, "
            "and why.",
            help=term("tied weights"),
        )
        left, right = st.columns(2)
        help_text = "Names of parameters, separated by spaces; * stands for any letters, for example model.layers.*"
        only = left.text_input("Merge only these parameters", key=f"load.only.{key}", placeholder="all", help=help_text)
        without = right.text_input("Leave these parameters out", key=f"load.without.{key}", placeholder="none", help=help_text)
        union = left.checkbox("Keep the experts' new tokens", key=f"load.union.{key}", help=term("vocabulary"))
        averaged = right.checkbox("Take averaged weights (EMA)", key=f"load.ema.{key}", help=term("averaged weights"))
        same = found.is_lora and st.checkbox(
            "These adapters belong to one base, even if their settings name different ones", key=f"load.bases.{key}"
        )
    vocabulary, weights = "union" if union else "base", "ema" if averaged else "live"
    return Fit(tuple(only.split()), tuple(without.split()), vocabulary, weights, bool(same))


def _qkv_choice(base: Path | None, experts: Mapping[str, Path], key: str) -> str:
    """How q, k and v are merged, where the files have any."""
    stored = stored_qkv(name for path in (*experts.values(), *([base] if base else [])) for name in peek(path).shapes)
    if stored == NONE:
        return STORED
    title = f"Attention's q, k and v (these files have them {stored})"
    return st.segmented_control(
        title,
        list(QKV),
        default=STORED,
        required=True,
        key=f"load.qkv.{key}",
        help=f"{term('q, k and v')} stored: as these files have them. A merged file always has them as the base has them.",
    )


def _by_task(chosen: Sequence[tuple[Any, Path]]) -> dict[str, Path]:
    tasks = [str(task or "").strip() for task, _ in chosen]
    twice = [task for task, count in Counter(tasks).items() if count > 1]
    if not tasks or "" in tasks or twice:
        got = "none" if not tasks else "one without a name" if "" in tasks else f"{', '.join(twice)} twice"
        raise InputError(f"expected at least one expert, each with its own task name, got {got}")
    return {task: path for task, (_, path) in zip(tasks, chosen, strict=True)}


def attachments(draft: Draft, found: FoundSet) -> Draft:
    """Images, heads and encoder, where accuracies are wanted."""
    with st.expander("Images and heads, for accuracies (optional)", icon=":material/image:"):
        st.markdown(
            "Spectra, alignment and merging work without images. Accuracies, the search for α and some methods need them."
        )
        wanted = st.toggle("Evaluate on images", key=f"load.images.{found.folder}")
        return replace(draft, bench=_bench(draft, found)) if wanted else draft


def _bench(draft: Draft, found: FoundSet) -> dict[str, Any]:
    """What ``BenchSpecification.of`` takes, as far as it differs from its defaults."""
    key, folders = str(found.folder), [str(path) for path in roots().subfolders()]
    left, right = st.columns(2)
    with left:
        encoder = st.text_input(
            "Image encoder",
            found.encoder or "",
            key=f"load.encoder.{key}",
            help="The name that open_clip has for the architecture, for example ViT-B-32-quickgelu for OpenAI's weights.",
        )
        data = st.selectbox(
            "Folder of the data sets",
            folders,
            key=f"load.data.{key}",
            help="Data sets as torchvision stores them, one folder for each class, or saved by Hugging Face's datasets.",
        )
    beside = next((str(head.parent) for head in found.heads.values()), None)
    options = [None, *folders]
    with right:
        heads = st.selectbox(
            "Heads",
            options,
            key=f"load.heads.{key}",
            index=options.index(beside) if beside in options else 0,
            format_func=lambda path: path or "made by the text tower of the base",
            help=f"{term('head')} Take them from a folder of head files, or let the text tower of the base make them.",
        )
        limit = st.number_input(
            "At most this many images a task",
            50,
            None,
            1000,
            50,
            key=f"load.limit.{key}",
            help="For validation and for test each, with the same share of every class. Fewer images take less memory and time.",
        )
    names = st.data_editor(
        [{"task": task, "data set": ""} for task in draft.experts],
        hide_index=True,
        disabled=["task"],
        key=f"load.datasets.{key}.{'/'.join(draft.experts)}",
    )
    st.caption(
        "**Data set:** leave it empty if the task has the name of its data set (mnist, stanford_cars, …). Otherwise type the "
        "name, a folder inside the one above, or *none* for a task without images."
    )
    download = st.toggle(
        "Download what is missing",
        key=f"load.download.{key}",
        help="On: fetches data sets and weights that are not on this machine. Off: fetches nothing.",
    )
    named = {row["task"]: row["data set"].strip() for row in names if (row["data set"] or "").strip()}
    return {
        "encoder": encoder.strip(),
        "data": data,
        "heads": heads,
        "datasets": named,
        "limit": limit,
        "val_limit": limit,
        "download": download,
    }
