"""Every matrix: one table to sort and filter, of a merge or of the difference of two, and each column as a map over tasks."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dcmerge import jobs
from dcmerge.evaluation import Scale
from dcmerge.evaluation.drift import IMAGES, Drift, feature_drift
from dcmerge.jobs.damaging import looks_state
from dcmerge.merging.recipe import USUAL
from dcmerge.methods import method
from dcmerge.plots.layers import layer_map
from dcmerge.studies.damage import MATRICES
from dcmerge.studies.glossary import explained, term
from dcmerge.studies.inspection import Consistency
from dcmerge.studies.layer_table import COLUMNS, DIRSIM, OF_MERGE, LayerTable, columns_of_set, of_damage, of_drift, of_merge
from dcmerge.studies.layer_table.found import as_csv, rows
from dcmerge.ui import damaging
from dcmerge.ui.alignment import consistency_of
from dcmerge.ui.background import BACKGROUND, Filling
from dcmerge.ui.charts import show
from dcmerge.ui.choice import Choice, choice_of_method, live_methods
from dcmerge.ui.growing import growing
from dcmerge.ui.layer_pair import two_layers_card
from dcmerge.ui.merging import QUICK_SPLIT, merged_once
from dcmerge.ui.shell import Page, readable_errors
from dcmerge.ui.text import plain
from dcmerge.ui.view import remembered
from dcmerge.vectors.naming import place_of

_NONE, _ALL = "nothing", "all kinds"
#: How the table writes each column.
_FORMATS = {
    "norm": "%.3f",
    "effective rank": "%.1f",
    "top share": "%.1f %%",
    "DirSim": "%.3f",
    "drift": "%.2f",
    "damage": "%+.1f",
}
_DIFFERENCE = "Blue: the first method has more than the second, red: less. "


def layer_cards(page: Page) -> None:
    """The merge, then the table, then one column by task."""
    choice = choice_of_method(page)
    other, with_drift = _controls(page)
    choices = [choice, *([_at_defaults(page, other)] if other != _NONE else [])]
    studies = [consistency_of(page, one.method.slug, one.parameters) for one in choices]

    def draw(of_set: LayerTable, *consistent: Consistency) -> None:
        columns = [_merge_columns(page, one, own, with_drift) for one, own in zip(choices, consistent, strict=True)]
        found = of_set | columns[0]
        found = found - columns[1] if len(columns) > 1 else found
        _table_card(page, found, other)
        two_layers_card(page, found, _FORMATS)
        _map_card(page, found, other)

    with readable_errors():
        growing([_set_columns(page), *studies], draw, "Looking at every matrix")


def _at_defaults(page: Page, slug: str) -> Choice:
    """A method as it comes, at its usual α."""
    chosen = method(slug)
    parameters = chosen.check({})
    return Choice(chosen, parameters, Scale(chosen.usual_scale_for(page.models.vectors, parameters), USUAL))


def _controls(page: Page) -> tuple[str, bool]:
    known = {slug: one.title for slug, one in live_methods(page)[0].items()}
    with st.container(border=True):
        left, right = st.columns([2, 1], vertical_alignment="bottom")
        with left:
            other = remembered(
                st.selectbox,
                "Minus",
                key="layers.minus",
                default=_NONE,
                options=[_NONE, *known],
                format_func=lambda slug: known.get(slug, _NONE),
                help="Another method, at its defaults. What depends on the merge is then shown as the difference of the two.",
            )
        with right:
            with_drift = page.models.bench is not None and remembered(
                st.toggle,
                "Feature drift too",
                key="layers.drift",
                default=False,
                help=f"Takes some seconds: {IMAGES} validation images a task pass every expert. {term('feature drift')}",
            )
    return other, with_drift


def _set_columns(page: Page) -> Filling[LayerTable]:
    return BACKGROUND.filling((page.models.key, "layer table"), lambda: columns_of_set(page.models.vectors))


def _merge_columns(page: Page, choice: Choice, consistent: Consistency, with_drift: bool) -> LayerTable:
    """DirSim, the drift where it is asked for, and the damage where a map of this very merge was made."""
    vectors = page.models.vectors
    found = of_merge(vectors, consistent)
    if with_drift:
        drift = _drift(page.models.key, choice.method.slug, tuple(choice.parameters.items()), choice.scale.value, page)
        found = found if drift is None else found | of_drift(vectors, drift)
    damage = _damage(page, choice)
    return found if damage is None else found | damage


@st.cache_resource(max_entries=16, show_spinner=False)
def _drift(key: str, slug: str, parameters: tuple[tuple[str, Any], ...], scale: float, _page: Page) -> Drift | None:
    merged = merged_once(_page.models, slug, dict(parameters))
    bench = _page.models.images
    return feature_drift(bench, merged.model(bench, scale), split=QUICK_SPLIT)


def _damage(page: Page, choice: Choice) -> LayerTable | None:
    """Of the newest damage map of these models and this merge, matrix by matrix; None where there is none."""
    for job in jobs.all_jobs():
        spec = job.specification
        if not isinstance(spec, jobs.Damage) or (spec.set, spec.plan.by) != (page.models.name, MATRICES):
            continue
        same = (spec.plan.slug, dict(spec.plan.parameters)) == (choice.method.slug, dict(choice.parameters))
        if same and spec.scale == choice.scale.value and looks_state(job) and (found := damaging.found_of(job)):
            return of_damage(page.models.vectors, found)
    return None


def _table_card(page: Page, found: LayerTable, other: str) -> None:
    with st.container(border=True):
        st.markdown(
            "**Every matrix** (means over the tasks)", help=explained("effective rank", "overlap, times chance", "DirSim")
        )
        left, right = st.columns([2, 1])
        with left:
            text = remembered(
                st.text_input,
                "Filter",
                key="layers.text",
                default="",
                placeholder="a part of the name, such as mlp or block 2",
                max_chars=100,
            )
        kinds = list(dict.fromkeys(place_of(name).kind for name in found.layers))
        with right:
            kind = remembered(st.selectbox, "Kind", key="layers.kind", default=_ALL, options=[_ALL, *kinds])
        shown = found.matching(text) if text else found
        if kind != _ALL:
            shown = shown.taken([place for place, name in enumerate(shown.layers) if place_of(name).kind == kind])
        if not shown.layers:
            st.info("No matrix matches. Choose less above.", icon=":material/filter_alt_off:")
            return
        st.dataframe(
            [{"label": row.pop("label"), **row} for row in rows(shown)],
            hide_index=True,
            placeholder="–",
            alt="Every matrix with what the experts changed in it and what the merge kept",
            column_order=["label", *(name for name in COLUMNS if name in shown.values), "matrix"],
            column_config=_columns(other != _NONE),
        )
        st.caption(
            "**How to read:** click the name of a column to sort. Damage stands here when the damage map of this very merge was "
            "made matrix by matrix."
        )
        st.download_button(
            "Matrices and tasks as CSV", as_csv(shown), "matrices.csv", "text/csv", on_click="ignore", icon=":material/download:"
        )


def _columns(difference: bool) -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    found: dict[str, Any] = {"label": text("matrix", pinned=True), "matrix": text("name")}
    for name, about in COLUMNS.items():
        minus = difference and name in OF_MERGE
        form = _FORMATS.get(name, "%.1f")
        found[name] = number(
            f"Δ {name}" if minus else name,
            format=form.replace("%.", "%+.") if minus else form,
            help=f"{about[0].upper()}{about[1:]}{', of the first method minus the second' if minus else ''}.",
        )
    return found


def _map_card(page: Page, found: LayerTable, other: str) -> None:
    with st.container(border=True):
        options = [name for name in COLUMNS if name in found.values]
        column = remembered(
            st.segmented_control,
            "By task",
            key="layers.column",
            default=DIRSIM,
            options=options,
            required=True,
            help="The column that is shown task by task.",
        )
        difference = other != _NONE and column in OF_MERGE
        what = "difference of " if difference else ""
        show(
            layer_map(
                found.values[column].tolist(),
                [place_of(name).label for name in found.layers],
                list(page.models.task_titles.values()),
                column,
                f"By task and matrix: {what}{column}",
                difference=difference or column == "damage",
            ),
            f"{plain(COLUMNS[column])}. {_DIFFERENCE if difference else ''}Empty cells are matrices without such a value.",
            key="layers.map",
            terms=(column if column in ("DirSim", "effective rank", "top share", "overlap, times chance") else "matrix",),
        )
