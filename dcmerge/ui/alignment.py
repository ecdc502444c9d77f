"""Cards of the Alignment page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dcmerge import plots
from dcmerge.plots.layers import layer_map
from dcmerge.studies.glossary import explained, term
from dcmerge.studies.inspection import MEASURES, Consistency, LayerAlignment, consistencies, layer_alignment
from dcmerge.ui.background import BACKGROUND, Filling
from dcmerge.ui.charts import show
from dcmerge.ui.choice import live_methods
from dcmerge.ui.growing import growing
from dcmerge.ui.held import STAGES
from dcmerge.ui.shell import Page
from dcmerge.ui.text import percent, plain
from dcmerge.ui.view import remembered
from dcmerge.vectors.naming import place_of

_SIDES = {"outputs (U)": "U", "inputs (V)": "V"}
_OVERLAPS = {
    "before": "how much of one expert's main directions lies in another's, from 0 (orthogonal) to 1 (equal). High values off the "
    "diagonal are where two experts disturb each other.",
    "after": "each whitened block against each expert. A diagonal near 1 and small values elsewhere mean that every expert kept "
    "its own directions.",
}
_DEFAULT_METHODS = ["average", "iso_c", "dc_merge"]


def _alignment(page: Page) -> LayerAlignment:
    key = (page.models.key, page.layer_name, tuple(page.smoothing.items()))
    with BACKGROUND.first():
        found = STAGES.get(key, lambda: layer_alignment(page.layer, **page.smoothing), worth=0)
    if found is None:
        st.info(
            "This matrix is too small to give every task a component, so it has no cover basis. Choose another one in the "
            "sidebar.",
            icon=":material/info:",
        )
        st.stop()
    return found


def overlap_card(page: Page) -> None:
    """Overlap before and after whitening."""
    with st.container(border=True):
        st.subheader(plain(place_of(page.layer_name).label), help=explained("cover basis", "whitening"))
        side = remembered(
            st.segmented_control,
            "Side of the matrix",
            key="side",
            default=next(iter(_SIDES)),
            options=list(_SIDES),
            required=True,
            help=f"A matrix maps inputs (V) to outputs (U). {term('singular vectors')}",
        )
        alignment = _alignment(page)
        for column, (stage, reading) in zip(st.columns(2), _OVERLAPS.items(), strict=True):
            with column:
                show(
                    plots.overlap_map(alignment, _SIDES[side], stage, list(page.models.task_titles.values())),
                    reading,
                    key=f"alignment.overlap.{stage}",
                    terms=("overlap", "whitening"),
                )
        moved = alignment.whitening_distance[0 if _SIDES[side] == "U" else 1]
        st.caption(
            f"Whitening moved each direction by {moved:.3f} on average; 0 means that they were orthogonal before.",
            help=term("whitening distance"),
        )


def aligned_card(page: Page) -> None:
    """One task's aligned delta with block grid and kept entries."""
    titles = page.models.task_titles
    with st.container(border=True):
        task = remembered(
            st.selectbox,
            "Task",
            key="task",
            default=next(iter(titles)),
            options=list(titles),
            format_func=lambda name: titles[name],
            help="The task whose delta is shown below, in the cover basis.",
        )
        show(
            plots.aligned_delta_map(_alignment(page), list(titles).index(task), titles[task], list(titles.values())),
            "this is the task's change, written in the cover basis. Each square of the grid belongs to the directions of two "
            "tasks. A task that fits its own block shows a bright diagonal inside it. Ringed entries are the largest: DC-Merge "
            "keeps them and drops all others before the merge.",
            key="alignment.aligned",
            terms=("aligned delta", "kept entries", "cover basis"),
        )


def blocks_card(page: Page) -> None:
    """Energy by block, own share and reconstruction error."""
    titles = page.models.task_titles
    alignment = _alignment(page)
    with st.container(border=True):
        show(
            plots.block_energy_map(alignment, list(titles.values())),
            "each row is a task. The diagonal is what it has in its own block; the last column is what the block mask removes.",
            key="alignment.blocks",
            terms=("block mask", "aligned delta", "energy (sum of s²)"),
        )
        shares = zip(alignment.own_block_share, alignment.kept_share, alignment.surviving_share, strict=True)
        rows = [
            {
                "task": title,
                "own block": percent(own),
                "kept entries": int(alignment.stages.kept[t].sum()),
                "energy kept": percent(kept),
                "left in the merge": percent(left),
                "rebuilt to within": alignment.reconstruction[t],
            }
            for t, (title, (own, kept, left)) in enumerate(zip(titles.values(), shares, strict=True))
        ]
        st.dataframe(
            rows,
            hide_index=True,
            alt="What each task keeps in the cover basis",
            column_config={
                "own block": st.column_config.TextColumn(help=term("own block")),
                "kept entries": st.column_config.NumberColumn(help=term("kept entries")),
                "energy kept": st.column_config.TextColumn(help=term("energy kept")),
                "left in the merge": st.column_config.TextColumn(help=term("left in the merge")),
                "rebuilt to within": st.column_config.NumberColumn(format="%.1e", help=term("reconstruction error")),
            },
        )
        st.caption(
            "**How to read:** a task with a small share left in the merge is lost in this matrix, however well the others do."
        )


def consistency_of(page: Page, slug: str, parameters: Mapping[str, Any]) -> Filling[Consistency]:
    """A merge's directional consistency with every expert, as far as it is found."""
    models = page.models
    return BACKGROUND.filling(
        (models.key, "consistency", slug, tuple(sorted(parameters.items()))),
        lambda: consistencies(models.vectors, slug, parameters, models.bench),
    )


def consistency_card(page: Page) -> None:
    """DirSim of merged against each expert over depth, for the chosen methods."""
    known, _ = live_methods(page)
    with st.container(border=True):
        left, right = st.columns([3, 2])
        with left:
            chosen = remembered(
                st.multiselect,
                "Methods",
                key="methods",
                default=_DEFAULT_METHODS,
                options=list(known),
                format_func=lambda slug: known[slug].title,
                help="Each method merges with its default settings, DC-Merge with the smoothing of the sidebar.",
            )
        with right:
            measure = remembered(
                st.selectbox,
                "Measure",
                key="measure",
                default=next(iter(MEASURES)),
                options=list(MEASURES),
                help=explained(*MEASURES),
            )
        if not chosen:
            st.info("Choose at least one method to compare.", icon=":material/info:")
            return
        fillings = {
            known[slug].title: consistency_of(page, slug, known[slug].check(page.smoothing if slug == "dc_merge" else {}))
            for slug in chosen
        }

        def draw(*found: Consistency) -> None:
            results = dict(zip(fillings, found, strict=True))
            show(
                plots.consistency_lines(results, measure),
                "the line is the mean over the experts; the band spans the least and the best preserved one. Higher means that "
                "the merged matrix still points where the experts pointed.",
                key="alignment.consistency",
                terms=(measure,),
            )
            _task_map(page, results, measure)

        growing(list(fillings.values()), draw, "Merging and comparing directions", "merged matrices")


def _task_map(page: Page, results: Mapping[str, Consistency], measure: str) -> None:
    """The band of one method, task by task."""
    title = remembered(
        st.selectbox,
        "Task by task",
        key="alignment.map.method",
        default=next(iter(results)),
        options=list(results),
        help="The method whose tasks are shown one by one.",
    )
    found = results[title]
    show(
        layer_map(
            found.measures[measure].tolist(),
            [place_of(name).label for name in found.layers],
            list(page.models.task_titles.values()),
            measure,
            f"{measure} of {title} and each expert, by task and matrix",
        ),
        "a dark row is an expert whose directions the merge does not keep; a dark column is a matrix in which it keeps nobody's.",
        key="alignment.map",
        terms=(measure,),
    )
