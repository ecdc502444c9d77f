"""Cards of the Alignment page."""

from __future__ import annotations

import streamlit as st

from dcmerge import plots
from dcmerge.studies.inspection import MEASURES, Consistency, LayerAlignment, consistency, layer_alignment
from dcmerge.ui.charts import show
from dcmerge.ui.choice import live_methods
from dcmerge.ui.merging import merged_once
from dcmerge.ui.shell import Page
from dcmerge.ui.text import percent, plain
from dcmerge.ui.view import remembered
from dcmerge.vectors.naming import place_of

_SIDES = {"outputs (U)": "U", "inputs (V)": "V"}
_DEFAULT_METHODS = ["average", "iso_c", "dc_merge"]


def _alignment(page: Page) -> LayerAlignment:
    found = _alignment_once(page.models.key, page.layer_name, tuple(page.smoothing.items()), page)
    if found is None:
        st.info(
            "Not one component per task fits into this matrix: there is no cover basis to show. Choose another one.",
            icon=":material/info:",
        )
        st.stop()
    return found


@st.cache_resource(max_entries=16, show_spinner=False)
def _alignment_once(name: str, layer: str, smoothing: tuple[tuple[str, object], ...], _page: Page) -> LayerAlignment | None:
    return layer_alignment(_page.layer, **dict(smoothing))


def overlap_card(page: Page) -> None:
    """Overlap before and after whitening."""
    with st.container(border=True):
        st.subheader(plain(place_of(page.layer_name).label))
        side = remembered(
            st.segmented_control,
            "Side of the matrix",
            key="side",
            default=next(iter(_SIDES)),
            options=list(_SIDES),
            required=True,
            help="A matrix maps inputs (right singular vectors V) to outputs (left, U).",
        )
        alignment = _alignment(page)
        show(
            plots.overlap_maps(alignment, _SIDES[side], list(page.models.task_titles.values())),
            "left, how much of one expert's leading subspace lies in another's: off-diagonal values are where they would "
            "disturb each "
            "other. Right, the whitened blocks against the experts: a diagonal near 1 and small values elsewhere mean that "
            "everyone kept their own directions.",
            key="alignment.overlap",
        )
        moved = alignment.whitening_distance[0 if _SIDES[side] == "U" else 1]
        st.caption(
            f"Whitening moved each direction by {moved:.3f} on average (‖C − [U₁ … U_T]‖ / √(T·r); 0 would be: "
            "already orthogonal)."
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
            help="Whose delta to show in the cover basis.",
        )
        show(
            plots.aligned_delta_map(_alignment(page), list(titles).index(task), titles[task], list(titles.values())),
            "the task's change, written in the cover basis: each square of the grid belongs to one pair of tasks' "
            "directions. A task "
            "that is aligned with its own block shows a bright diagonal inside it. Ringed entries are the largest, which "
            "DC-Merge "
            "keeps; everything else is dropped before the merge.",
            key="alignment.aligned",
        )


def blocks_card(page: Page) -> None:
    """Energy by block, own share and reconstruction error."""
    titles = page.models.task_titles
    alignment = _alignment(page)
    with st.container(border=True):
        show(
            plots.block_energy_map(alignment, list(titles.values())),
            "each row is a task. The diagonal is what it keeps in its own block; the last column is what the block mask removes.",
            key="alignment.blocks",
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
                "own block": st.column_config.TextColumn(help="share of ‖M_t‖² in the task's own diagonal block"),
                "energy kept": st.column_config.TextColumn(help="share of ‖M_t‖² in the kept (largest) entries"),
                "left in the merge": st.column_config.TextColumn(help="share of ‖M_t‖² after keep and block mask"),
                "rebuilt to within": st.column_config.NumberColumn(
                    format="%.1e", help="‖C_U M_t C_Vᵀ − D̄_t‖ / ‖D̄_t‖: 0 where the basis spans everything the task kept"
                ),
            },
        )


@st.cache_resource(max_entries=32, show_spinner=False)
def _consistency(name: str, slug: str, parameters: tuple, _page: Page) -> Consistency:
    merged = merged_once(_page.models, slug, dict(parameters))
    return consistency(_page.models.vectors, merged.deltas)


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
                help="Each is merged with its defaults; DC-Merge with the sidebar's smoothing.",
            )
        with right:
            measure = remembered(
                st.selectbox,
                "Measure",
                key="measure",
                default=next(iter(MEASURES)),
                options=list(MEASURES),
                help="; ".join(f"{name}: {text}" for name, text in MEASURES.items()),
            )
        if not chosen:
            st.info("Choose at least one method to compare.", icon=":material/info:")
            return
        with st.spinner("Merging and comparing directions …"):
            results = {}
            for slug in chosen:
                shared = page.smoothing if slug == "dc_merge" else {}
                parameters = tuple(known[slug].check(shared).items())
                results[known[slug].title] = _consistency(page.models.key, slug, parameters, page)
        show(
            plots.consistency_lines(results, measure),
            f"{MEASURES[measure]}. Higher means that the merged matrix still points where the experts pointed; the band spans "
            "the least and the best preserved expert.",
            key="alignment.consistency",
        )
