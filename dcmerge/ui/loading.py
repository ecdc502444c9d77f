"""The Load page: from a folder of checkpoints to a set that is opened and remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import streamlit as st

from dcmerge.checkpoints.paths import shown
from dcmerge.checkpoints.regrouped import QKV, STORED
from dcmerge.checkpoints.schemes import NONE, stored_qkv
from dcmerge.errors import InputError
from dcmerge.merging.prediction import Cost, predicted_costs
from dcmerge.sets.layouts import FoundSet, Search, peek, search
from dcmerge.sets.model_sets import SAVED, roots
from dcmerge.sets.saved_sets import SavedSet, forget_set, save_set, saved_sets
from dcmerge.ui.home import findings_table
from dcmerge.ui.shell import SET, opened, readable_errors
from dcmerge.ui.text import duration, plain
from dcmerge.ui.view import choose, choose_for_next_page, remembered
from dcmerge.vectors.compatibility import examine
from dcmerge.vectors.task_vectors import open_set

FOLDER = "folder"
_SPECTRA = "pages/1_Spectra.py"
_NO_BASE = "none: the adapters alone"


@dataclass(frozen=True)
class Draft:
    """A set as it is being put together."""

    name: str
    base: Path | None
    experts: Mapping[str, Path]
    qkv: str = STORED
    bench: Mapping[str, Any] = field(default_factory=dict)

    def to_save(self, name: str) -> SavedSet:
        base = None if self.base is None else str(self.base)
        return SavedSet(name.strip(), base, {task: str(path) for task, path in self.experts.items()}, self.qkv, self.bench)


def remembered_sets() -> None:
    """The sets of earlier visits, to open again or to forget."""
    saved = saved_sets()
    if not saved:
        return
    st.header("Remembered sets")
    for one in saved.values():
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            images = "with images" if one.bench else "without images"
            st.markdown(f"**{plain(one.name)}**: {len(one.experts)} experts, {images}", width="stretch")
            if st.button("Show spectra", key=f"load.open.{one.name}", icon=":material/equalizer:"):
                _open(one)
            st.button(
                "Forget",
                key=f"load.forget.{one.name}",
                icon=":material/delete:",
                on_click=forget_set,
                args=(one.name,),
                help="Takes it off this list. The checkpoints stay as they are.",
            )


def folder_choice() -> Path | None:
    """A folder below the roots, by name or step by step; None where there is none to choose."""
    st.header("1. Where do the checkpoints lie?")
    allowed = roots()
    folders = {str(path): path for path in allowed.subfolders()}
    named = ", ".join(f"`{shown(root)}`" for root in allowed.folders)
    how = "`python -m dcmerge app --root FOLDER` lets the app read another folder"
    if not folders:
        st.info(
            f"The app reads below {named}, where nothing lies. Put your checkpoints there, or start it elsewhere: {how}.",
            icon=":material/folder_off:",
        )
        return None
    chosen = remembered(
        st.selectbox,
        "Folder",
        key=FOLDER,
        default=next(iter(folders)),
        options=list(folders),
        help=f"The app reads files only below {named}. {how}. Type to search.",
    )
    _step_inside(folders[chosen], folders)
    return folders[chosen]


def _step_inside(folder: Path, folders: Mapping[str, Path]) -> None:
    """Buttons to the folder above and to those inside."""
    above, inside = folder.parent, [path for path in folders.values() if path.parent == folder]
    with st.container(horizontal=True):
        if str(above) in folders:
            st.button("Up", icon=":material/arrow_upward:", key="load.up", on_click=choose, args=(FOLDER, str(above)))
        for path in inside[:12]:
            go = {"on_click": choose, "args": (FOLDER, str(path))}
            st.button(plain(path.name), icon=":material/folder:", key=f"load.in.{path}", **go)
    if len(inside) > 12:
        st.caption(f"and {len(inside) - 12} more folders: type in the field above.")


def found_set(folder: Path) -> FoundSet | None:
    """What was recognised; where several sets lie in the folder, one is chosen."""
    st.header("2. What lies there")
    with readable_errors():
        found = search(folder, roots())
    if not found.sets:
        st.info(
            "No base with experts that go with it was recognised in this folder. A set is a pre-trained model and models "
            "fine-tuned from it: see the README for the layouts.",
            icon=":material/search_off:",
        )
        _skipped_table(found.skipped)
        return None
    titles = _titles(found)
    place = 0
    if len(titles) > 1:
        label = f"{len(titles)} sets lie here"
        place = st.selectbox(label, range(len(titles)), format_func=titles.__getitem__, key=f"load.which.{folder}")
    one = found.sets[place]
    size = sum(peek(path).size for path in one.checkpoints)
    encoder = f", image encoder {one.encoder}" if one.encoder else ""
    st.markdown(
        f"**{plain(one.title)}** in {plain(str(one.folder))}: {len(one.experts)} experts, {size / 1e6:,.1f} MB on disk"
        f"{plain(encoder)}."
    )
    for note in one.notes:
        st.info(plain(note), icon=":material/info:")
    if one.convert:
        st.warning(plain(one.lacks), icon=":material/warning:")
        return None
    _skipped_table(one.skipped)
    return one


def _titles(found: Search) -> list[str]:
    """What tells the sets of a folder apart."""
    return [
        f"{one.folder.name}: {one.title}, {len(one.experts)} experts, {one.base.name if one.base else 'no base'}"
        for one in found.sets
    ]


def _skipped_table(skipped: Sequence[Any]) -> None:
    if skipped:
        with st.expander(f"{len(skipped)} files and folders are not used"):
            st.dataframe(
                [{"file": str(one.path), "why": one.reason} for one in skipped],
                hide_index=True,
                alt="Files that are not used, with the reason",
            )


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
        format_func=lambda path: _NO_BASE if path is None else str(path),
        help="The pre-trained model that all experts were fine-tuned from: one of these files, or another "
        "checkpoint below the roots.",
    )
    experts = found.with_base(base).experts
    rows = [
        {
            "merge": True,
            "task": task,
            "checkpoint": str(path),
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
            "task": column.TextColumn(help="How this expert's task is called on all pages. A data set's name finds its images."),
            "head": column.CheckboxColumn(help="Whether a head file for this task lies beside it: the task's frozen classifier."),
        },
    )
    st.caption("**How to read:** one row an expert; its task can be renamed by a double click. What is unticked is left out.")
    # By its place: what a browser sends back of a column that cannot be edited is not a path to open.
    chosen = [(row["task"], path) for row, path in zip(edited, experts.values(), strict=True) if row["merge"]]
    with readable_errors():
        named = _by_task(chosen)
        return Draft(found.folder.name, base, named, _qkv_choice(base, named, key))


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
        help="stored: as these files have them. split: q, k and v are three matrices, as Hugging Face has them. fused: one, as "
        "open_clip has it. These are different merges; files are written as the base has them.",
    )


def _by_task(chosen: Sequence[tuple[Any, Path]]) -> dict[str, Path]:
    tasks = [str(task or "").strip() for task, _ in chosen]
    twice = [task for task, count in Counter(tasks).items() if count > 1]
    if not tasks or "" in tasks or twice:
        got = "none is ticked" if not tasks else "one has no name" if "" in tasks else f"{', '.join(twice)} twice"
        raise InputError(f"expected at least one expert, each with a task name of its own, got: {got}")
    return {task: path for task, (_, path) in zip(tasks, chosen, strict=True)}


def attachments(draft: Draft, found: FoundSet) -> Draft:
    """Images, heads and encoder, where accuracies are wanted."""
    with st.expander("Images and heads, for accuracies (optional)", icon=":material/image:"):
        st.markdown(
            "Spectra, alignment and merging work without them; accuracies, the search for α and methods that look at "
            "images need them."
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
            help="open_clip's name of the architecture, such as ViT-B-32-quickgelu for OpenAI's weights.",
        )
        data = st.selectbox(
            "Folder of the data sets",
            folders,
            key=f"load.data.{key}",
            help="As torchvision lays them out, class folders, or saved by Hugging Face's datasets.",
        )
    beside = next((str(head.parent) for head in found.heads.values()), None)
    options = [None, *folders]
    with right:
        heads = st.selectbox(
            "Heads",
            options,
            key=f"load.heads.{key}",
            index=options.index(beside) if beside in options else 0,
            format_func=lambda path: path or "computed by the text tower",
            help="A folder of head files (a task's frozen classifier), or the base's own text tower.",
        )
        limit = st.number_input(
            "Images a task, at most",
            50,
            None,
            1000,
            50,
            key=f"load.limit.{key}",
            help="Of each split, every class in its share: bounds memory and waiting.",
        )
    names = st.data_editor(
        [{"task": task, "data set": ""} for task in draft.experts],
        hide_index=True,
        disabled=["task"],
        key=f"load.datasets.{key}.{'/'.join(draft.experts)}",
    )
    st.caption(
        "**Data set:** empty where the task is called by its data set (mnist, stanford_cars, …); else its name, a folder "
        "in the one above, or *none* for a task that is not evaluated."
    )
    download = st.toggle(
        "Download what is missing",
        key=f"load.download.{key}",
        help="Off: nothing is fetched. On: data sets and weights that are not on this machine are.",
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


def examined(draft: Draft) -> None:
    """Whether the set fits together as far as headers tell, and what a merge of it will take."""
    st.header("4. Do they fit together?")
    with readable_errors():
        base, experts = open_set(draft.base, draft.experts, draft.qkv)
        report = examine(base, experts, values=False)
    if report.errors:
        st.error("These checkpoints cannot be merged: see the report.", icon=":material/error:")
    else:
        counts = report.counts()
        numbers = sum(p.numel for p in report.parameters if p.mergeable) / 1e6
        others = counts["vector"] + counts["convolution"]
        st.success(
            f"Names, shapes and dtypes fit: {counts['matrix']} matrices and {others} other tensors, "
            f"{numbers:.1f} million numbers.",
            icon=":material/check_circle:",
        )
    findings_table(report)
    if not report.errors:
        _costs(predicted_costs(base, experts, report.parameters))


def _costs(costs: Mapping[str, Cost]) -> None:
    told = "; ".join(
        f"{title} about {duration(cost.seconds)} and at most {cost.peak_bytes / 2**30:.1f} GiB of memory"
        for title, cost in costs.items()
    )
    st.caption(
        f"Merging into a file takes, predicted from shapes and this machine's speed: {told}. Values (NaN, equal experts) "
        "are checked when the set is opened, which reads every file once."
    )


def open_and_remember(draft: Draft) -> None:
    """One button: open the set, remember it, show its spectra."""
    st.header("5. Open")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Name of the set",
            draft.name,
            key=f"load.name.{draft.name}",
            max_chars=80,
            help="How it is called in the sidebar. A set of the same name is replaced.",
        )
        pressed = st.button("Open and show spectra", type="primary", icon=":material/equalizer:")
    if pressed:
        with readable_errors():
            one = draft.to_save(name)
        _open(one)


def _open(one: SavedSet) -> None:
    """Open it, and only then remember it; a set that cannot be opened is told in a box."""
    known = saved_sets().get(one.name)
    with readable_errors():
        save_set(one)
        try:
            opened(f"{SAVED}{one.name}")
        except InputError:
            forget_set(one.name) if known is None else save_set(known)
            raise
    choose_for_next_page(SET, f"{SAVED}{one.name}")
    st.switch_page(_SPECTRA)
