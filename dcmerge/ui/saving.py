"""Taking a merged model along: as a file or an adapter with its recipe, or as a text that makes it again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.merging.merge import Merged
from dcmerge.merging.output import DTYPES
from dcmerge.merging.output.adapters import in_one_file
from dcmerge.merging.recipe import ADAPTER, DELTA, MODEL
from dcmerge.studies.glossary import explained, term
from dcmerge.ui.choice import Choice
from dcmerge.ui.copying import copies
from dcmerge.ui.job_saving import save_as_job
from dcmerge.ui.merging import merged_once
from dcmerge.ui.shell import Page
from dcmerge.ui.text import plain
from dcmerge.vectors.layers import layer_of

_DOWNLOAD_LIMIT = 500 << 20
#: Up to this size what rounding costs is said at every change.
_AT_ONCE = 100 << 20


def save_card(page: Page, choice: Choice) -> None:
    """Download the merged model, or copy what makes it again."""
    with st.container(border=True):
        st.subheader("Save the merged model", help=explained("recipe", "merged task vector"))
        size = sum(info.nbytes for info in page.models.vectors.base.infos.values()) if page.models.vectors.base else 0
        st.markdown(
            "The file has the names and dtypes of the base. It holds its own recipe: the inputs with their hashes, the method, "
            "its parameters, and α with where it came from."
        )
        task = _task(page, choice)
        if page.models.vectors.kind == "lora" and not in_one_file(page.models.vectors) and _wants_adapter():
            return _adapter(page, choice, task)
        dtype = _dtype(page, choice, task, size)
        if size and size <= _DOWNLOAD_LIMIT:
            whose = f"-{task}" if task else ""
            name = f"{choice.method.slug}{whose}-alpha-{choice.scale.value:g}.safetensors"
            st.download_button(
                "Save merged model",
                data=lambda: _file(page, choice, task, dtype),
                file_name=name,
                icon=":material/download:",
                mime="application/octet-stream",
                on_click="ignore",
                help=f"A safetensors file of about {size / 1e6:.0f} MB.",
            )
        else:
            st.caption("This is too large to download in a browser. Save it on this machine.")
        content = MODEL if page.models.vectors.base else DELTA
        what = {"content": content, "task": task, "dtype": dtype}
        save_as_job(page, choice, what)
        copies(page, choice, what, small=size <= _DOWNLOAD_LIMIT)


def _task(page: Page, choice: Choice) -> str | None:
    """Whose model is saved, where the method makes one for each task."""
    if not choice.method.modules:
        return None
    titles = page.models.task_titles
    return st.selectbox(
        "Whose model",
        list(titles),
        key="save.task",
        format_func=lambda task: titles[task],
        help="This method makes one model for each task. A file holds one of them.",
    )


def _dtype(page: Page, choice: Choice, task: str | None, size: int) -> str | None:
    """What the file is written in, and what weights of 16 bits lose of the merge; None is the base's own dtypes."""
    base = page.models.vectors.base
    if base is None:
        return None
    chosen = st.selectbox(
        "Number format",
        [None, *DTYPES],
        key="save.dtype",
        format_func=lambda name: name or "the base's dtypes",
        help="bfloat16 and float16 take half the space, and they round. What that costs is shown here.",
    )
    if size > _DOWNLOAD_LIMIT:  # telling the cost takes the whole merge in memory
        return chosen
    written = [DTYPES[chosen]] if chosen else [info.dtype for info in base.infos.values()]
    if not any(dtype.is_floating_point and dtype.itemsize < 4 for dtype in written):
        return chosen
    # Where there are images the merge is at hand: the quick look above has made it.
    at_hand = page.models.bench is not None and size <= _AT_ONCE
    if at_hand or st.button(
        "What does rounding cost?",
        key="save.rounding",
        icon=":material/straighten:",
        help="Merges, and compares the result with what the file would hold.",
    ):
        _tell_rounding(page, choice, task, chosen)
    return chosen


def _tell_rounding(page: Page, choice: Choice, task: str | None, dtype: str | None) -> None:
    key = (page.models.key, choice.method.slug, sorted(choice.parameters.items()), choice.scale.value, dtype, task)
    try:
        merged = merged_once(page.models, choice.method.slug, choice.parameters)
        told, is_large = _rounding(repr(key), merged, choice.scale.value, dtype, task)
    except InputError as error:  # a method whose result no file holds, or values out of range: the page goes on
        st.info(plain(str(error)), icon=":material/info:")
        return
    if told:
        (st.warning if is_large else st.caption)(plain(f"{told[0].upper()}{told[1:]}."))


@st.cache_data(max_entries=64, show_spinner=False)
def _rounding(key: str, _merged: Merged, _scale: float, _dtype: str | None, _task: str | None) -> tuple[str, bool]:
    """What is lost, as a sentence, and whether it is much. ``key`` says of which merge."""
    found = _merged.rounding(_scale, dtype=_dtype, task=_task)
    return found.text, found.is_large


def _wants_adapter() -> bool:
    what = st.radio(
        "Save as",
        ["Full model", "PEFT adapter"],
        key="save.as",
        horizontal=True,
        help="A PEFT adapter holds α · merged task vector as LoRA factors. It loads wherever the adapters of the experts load.",
    )
    return what == "PEFT adapter"


def _adapter(page: Page, choice: Choice, task: str | None) -> None:
    """Download the adapter's folder as an archive, or copy what makes it again."""
    rank = st.number_input(
        "Rank",
        min_value=1,
        value=None,
        step=1,
        key="save.rank",
        placeholder="exact",
        help=f"{term('rank')}\n\nEmpty: the exact rank, at most the sum of the experts' ranks. The card in the archive says "
        "what a smaller rank loses.",
    )
    layers = [layer_of(page.models.vectors, name) for name in page.models.vectors.parameters]
    size = sum(4 * min(layer.joint_rank(), rank or layer.joint_rank()) * sum(layer.shape) for layer in layers)
    if size <= _DOWNLOAD_LIMIT:
        name = f"{choice.method.slug}-alpha-{choice.scale.value:g}-adapter.zip"
        st.download_button(
            "Save merged adapter",
            data=lambda: _archive(page, choice, task, rank),
            file_name=name,
            icon=":material/download:",
            mime="application/zip",
            on_click="ignore",
            help=f"A PEFT folder as a zip archive of at most about {max(1, size // 10**6)} MB.",
        )
    else:
        st.caption("This is too large to download in a browser. Save it on this machine.")
    what = {"content": ADAPTER, "adapter_rank": rank, "task": task}
    save_as_job(page, choice, what)
    copies(page, choice, what, small=size <= _DOWNLOAD_LIMIT)


def _archive(page: Page, choice: Choice, task: str | None, rank: int | None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        merged = merged_once(page.models, choice.method.slug, choice.parameters)
        scale = {"scale": choice.scale.value, "scale_origin": choice.scale.origin}
        merged.save_adapter(Path(folder) / "adapter", rank=rank, **scale, task=task)
        return Path(shutil.make_archive(str(Path(folder) / "archive"), "zip", Path(folder) / "adapter")).read_bytes()


def _file(page: Page, choice: Choice, task: str | None, dtype: str | None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merged.safetensors"
        merged = merged_once(page.models, choice.method.slug, choice.parameters)
        merged.save(path, scale=choice.scale.value, scale_origin=choice.scale.origin, task=task, dtype=dtype)
        return path.read_bytes()
