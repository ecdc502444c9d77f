"""The Runs page: filter and group what was measured, compare and pin runs, name them, take them along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from dcmerge.errors import InputError
from dcmerge.runs import KINDS, Run, RunStore
from dcmerge.studies.glossary import term
from dcmerge.studies.run_names import label_of, title_of
from dcmerge.ui.history import compared, picked, told
from dcmerge.ui.run_sharing import sharing_card
from dcmerge.ui.text import hundredfold, plain
from dcmerge.ui.view import remembered

#: The newest runs that the page lists and offers as filters.
_LISTED = 500
_ALL, _NOTE = "all", "runs.note"
_GROUPS: dict[str, Callable[[Run], str]] = {
    "method": title_of,
    "set": lambda run: run.set.name,
    "what": lambda run: run.kind,
    "sweep, comparison or job": lambda run: run.group or "single looks",
}


def runs_cards() -> None:
    """All cards; one sentence where the store cannot be used, and where there is nothing yet."""
    if problem := st.session_state.pop(_NOTE, ""):
        st.warning(plain(problem), icon=":material/info:")
    known: list[Run] | None = told(RunStore().find, default=None, limit=_LISTED)
    if known is None:
        st.info("What you measure is shown all the same, but it is not kept.", icon=":material/info:")
        return
    if not known:
        st.info(
            "There is no run yet. Open the Merge page, or start a comparison: what is measured there appears here.",
            icon=":material/info:",
        )
        sharing_card([])
        return
    with st.container(border=True):
        st.subheader("Find runs", help=term("run"))
        found = _filtered(known)
        if not found:
            st.info("No run matches. Choose less above.", icon=":material/filter_alt_off:")
            return
        _grouped(found)
        chosen = picked(found, key="runs.table", pinned=_pinned_ids(found))
        st.caption(
            f"{len(found)} runs, the newest first. Select one to name it, star it or pin it. Select several to compare them."
        )
    _selected(chosen)
    sharing_card(chosen or found)


def _filtered(known: Sequence[Run]) -> list[Run]:
    """The runs that all filters let through."""
    text, kind, models, slug, group, starred = _filters(known)
    wanted: dict[str, Any] = {"kind": kind, "set": models, "method": slug, "group": group}
    exact = {name: value for name, value in wanted.items() if value != _ALL}
    return told(RunStore().find, default=[], **exact, starred=starred or None, text=text or None, limit=_LISTED)


def _filters(known: Sequence[Run]) -> tuple[str, str, str, str, str, bool]:
    first, second = st.columns([2, 1, 2], vertical_alignment="bottom"), st.columns([2, 2, 1], vertical_alignment="bottom")
    with first[0]:
        text = remembered(
            st.text_input, "Search", key="runs.text", default="", placeholder="a name, a note, a method, a set …", max_chars=100
        )
    with first[1]:
        kind = _one_of("What", "runs.kind", KINDS)
    with first[2]:
        names = {run.set.hash: run.set.name for run in known}
        models = _one_of("Model set", "runs.set", list(names), names.get)
    with second[0]:
        titles = {run.method: title_of(run) for run in known}
        slug = _one_of("Method", "runs.method", list(titles), titles.get)
    with second[1]:
        group = _one_of("Sweep, comparison or job", "runs.group", list(dict.fromkeys(run.group for run in known if run.group)))
    with second[2]:
        starred = remembered(st.toggle, "Starred", key="runs.starred", default=False)
    return text, kind, models, slug, group, starred


def _one_of(label: str, key: str, options: Sequence[str], titles: Callable[[str], str | None] = lambda name: name) -> str:
    return remembered(
        st.selectbox,
        label,
        key=key,
        default=_ALL,
        options=[_ALL, *options],
        format_func=lambda name: _ALL if name == _ALL else titles(name) or name,
    )


def _grouped(found: Sequence[Run]) -> None:
    """How many runs of each group there are, and the best of them, where a grouping is chosen."""
    by = remembered(
        st.segmented_control, "Group by", key="runs.by", default="nothing", options=["nothing", *_GROUPS], required=True
    )
    if by == "nothing":
        return
    groups: dict[str, list[Run]] = {}
    for run in found:
        groups.setdefault(_GROUPS[by](run), []).append(run)
    share, number = "%.1f %%", st.column_config.NumberColumn
    st.dataframe(
        [_summary(by, name, runs) for name, runs in groups.items()],
        hide_index=True,
        key="runs.groups",
        column_config={"best": number(format=share, help=term("accuracy")), "its normalised": number(format=share)},
        alt=f"Runs by {by}",
    )


def _summary(by: str, name: str, runs: Sequence[Run]) -> dict[str, Any]:
    best = max(runs, key=lambda run: run.evaluation.mean)
    return {
        by: name,
        "runs": len(runs),
        "best": 100 * best.evaluation.mean,
        "its normalised": hundredfold(best.evaluation.mean_normalised),
        "which": label_of(best),
        "measured on": best.evaluation.measured_on,
    }


def _pinned_ids(found: Sequence[Run]) -> set[str]:
    """Of every set among the runs the pinned one."""
    store = RunStore()
    pins = [told(store.pinned, hash, default=None) for hash in {run.set.hash for run in found}]
    return {run.id for run in pins if run}


def _selected(chosen: Sequence[Run]) -> None:
    if not chosen:
        return
    with st.container(border=True):
        if len(chosen) == 1:
            _one(chosen[0])
        else:
            st.subheader("Side by side", help=term("paired bootstrap"))
            compared({}, chosen)
        _buttons(chosen)


def _one(run: Run) -> None:
    """Name and note of one run, and what it came from."""
    st.subheader(plain(label_of(run)))
    facts = [f"id {run.id}", run.evaluation.measured_on, f"of {run.group}" if run.group else "", run.tried]
    st.caption(plain(" · ".join(fact for fact in facts if fact)))
    with st.form(f"runs.form.{run.id}", border=False):
        name = st.text_input("Name", run.name, max_chars=200)
        note = st.text_area("Note", run.note, max_chars=5000)
        if st.form_submit_button("Save", icon=":material/save:"):
            _do(lambda: RunStore().update(run.id, name=name, note=note))
            st.rerun()
    if run.recipe:
        with st.expander("Recipe"):
            st.json(dict(run.recipe), expanded=2)


def _buttons(chosen: Sequence[Run]) -> None:
    """What can be done to the selected runs."""
    ids, all_starred = [run.id for run in chosen], all(run.starred for run in chosen)
    with st.container(horizontal=True):
        st.button("Remove star" if all_starred else "Star", icon=":material/star:", on_click=_star, args=(ids, not all_starred))
        if len(chosen) == 1:
            st.button("Pin", icon=":material/keep:", on_click=_pin, args=(ids[0],), help=term("pinned run"))
        with st.popover("Delete", icon=":material/delete:"):
            count = "this run" if len(ids) == 1 else f"these {len(ids)} runs"
            st.markdown(f"Delete {count} for good?")
            st.button("Yes, delete", key="runs.delete", type="primary", on_click=_delete, args=(ids,))


def _star(ids: Sequence[str], starred: bool) -> None:
    for id in ids:
        _do(lambda id=id: RunStore().update(id, starred=starred))


def _pin(id: str) -> None:
    _do(lambda: RunStore().pin(id))


def _delete(ids: Sequence[str]) -> None:
    _do(lambda: RunStore().delete(ids))


def _do(action: Callable[[], Any]) -> None:
    """Change the store from a callback; another tab may have deleted the run, which is said on the page."""
    try:
        action()
    except InputError as error:
        st.session_state[_NOTE] = str(error)
