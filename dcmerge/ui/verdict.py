"""Will it merge? A word for every pair of experts, the numbers behind it, and the part of the model that they come from."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dcmerge.plots.verdicts import NUMBERS, WORD, pair_matrix
from dcmerge.studies.damage import BLOCKS, MATRICES
from dcmerge.studies.damage.tables import label_of
from dcmerge.studies.glossary import explained, term
from dcmerge.studies.verdict import MEANINGS, TROUBLE, PairVerdict, Verdict, verdicts
from dcmerge.studies.verdict.tables import as_csv, numbers
from dcmerge.ui.background import BACKGROUND
from dcmerge.ui.charts import show
from dcmerge.ui.growing import growing
from dcmerge.ui.shell import Page
from dcmerge.ui.text import plain
from dcmerge.ui.view import remembered

_PAIRS, _CHOSEN = "verdict.pairs", "verdict.pair"
_ALL = "all pairs (mean)"


def verdict_cards(page: Page) -> None:
    """The paragraph and the matrix of pairs, the pairs as a table, and one pair part by part."""
    if len(page.models.vectors.tasks) < 2:
        st.info("This set has one expert. A pair needs two.", icon=":material/info:")
        return
    above, below = st.container(), st.container(border=True)
    with below:
        by = remembered(
            st.segmented_control,
            "Parts",
            key="verdict.by",
            default=BLOCKS,
            options=[BLOCKS, MATRICES],
            required=True,
            help="By which parts of the model each pair is told here.",
        )
    filling = BACKGROUND.filling((page.models.key, "verdict", by), lambda: verdicts(page.models.vectors, by))

    def draw(found: Verdict | None) -> None:
        if found is not None:
            _matrix_card(page, found)
            _pairs_card(page, found)

    with above:
        growing([filling], draw, "Comparing every pair of experts", "parameters")
    with below:
        if (found := filling.so_far()) is not None:
            _parts(page, found)


def _matrix_card(page: Page, found: Verdict) -> None:
    with st.container(border=True):
        st.subheader("Will it merge?", help=explained("verdict", "overlap, times chance"))
        st.markdown(plain(found.text))
        shown = remembered(
            st.segmented_control,
            "Show",
            key="verdict.shown",
            default=WORD,
            options=[WORD, *NUMBERS],
            required=True,
            help=explained("verdict", "cosine", "overlap, times chance", "opposite signs", "norm ratio"),
        )
        meanings = " ".join(f"**{word.capitalize()}**: {MEANINGS[word]}." for word in found.words())
        show(
            pair_matrix(found, page.models.task_titles, shown, _chosen()),
            f"each square is a pair of experts. **Click a square** to see that pair part by part below. {meanings}",
            key=_PAIRS,
            terms=("verdict", "overlap, times chance", "opposite signs"),
            on_select=_pick,
            selection_mode="points",
        )


def _chosen() -> tuple[str, str] | None:
    return st.session_state.get(_CHOSEN)


def _pick() -> None:
    """For the chart's callback."""
    points = st.session_state[_PAIRS].selection.points
    if points:
        first, second, *_ = points[0]["customdata"]
        st.session_state[_CHOSEN] = (first, second)


def _pairs_card(page: Page, found: Verdict) -> None:
    titles = page.models.task_titles
    with st.container(border=True):
        st.markdown("**Every pair**", help=explained("verdict", "norm ratio", "top share"))
        ordered = sorted(found.pairs, key=lambda one: (one.word not in TROUBLE, -abs(one.whole.cosine)))
        st.dataframe(
            [
                {"pair": f"{titles[one.first]} and {titles[one.second]}", "word": one.word, **_row(one), "because": one.reason}
                for one in ordered
            ],
            hide_index=True,
            placeholder="–",
            alt="Every pair of experts with its word and its numbers",
            column_config=_columns(),
        )
        st.download_button(
            "Pairs and parts as CSV", as_csv(found), "pairs.csv", "text/csv", on_click="ignore", icon=":material/download:"
        )


def _row(one: PairVerdict) -> dict[str, Any]:
    return _in_percent(numbers(one.whole))


def _in_percent(values: dict[str, Any]) -> dict[str, Any]:
    shares = ("opposite signs", "opposite signs by chance", "overlap share", "top share, first", "top share, second")
    return {
        name: 100 * value if name in shares and value is not None else value
        for name, value in values.items()
        if name != "beyond chance"
    }


def _columns() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    share = "%.0f %%"
    return {
        "pair": text(pinned=True),
        "word": text(help=term("verdict")),
        "cosine": number(format="%.3f", help=term("cosine")),
        "opposite signs": number(format=share, help=term("opposite signs")),
        "opposite signs by chance": number("by chance", format=share, help=term("opposite signs")),
        "overlap, times chance": number("overlap × chance", format="%.1f", help=term("overlap, times chance")),
        "outputs": number(format="%.1f", help="The same of the outputs' side of the matrices alone."),
        "inputs": number(format="%.1f", help="The same of the inputs' side of the matrices alone."),
        "overlap share": number("of possible", format=share, help=term("overlap")),
        "norm ratio": number("lengths", format="%.2f", help=term("norm ratio")),
        "top share, first": number("top share", format=share, help=f"Of the first expert. {term('top share')}"),
        "top share, second": number("top share of the second", format=share, help=term("top share")),
        "because": text(help="The number that decided the word."),
    }


def _parts(page: Page, found: Verdict) -> None:
    """One row a part: of the chosen pair, or the mean of all."""
    titles, known = page.models.task_titles, {(one.first, one.second): one for one in found.pairs}
    options = [None, *known]
    if _chosen() not in options:
        st.session_state[_CHOSEN] = None
    pair = st.selectbox(
        "Pair",
        options,
        key=_CHOSEN,
        format_func=lambda one: _ALL if one is None else f"{titles[one[0]]} and {titles[one[1]]}",
        help="A click on a square above chooses its pair.",
    )
    rows = [{"part": label_of(unit), **_part(found, unit, known.get(pair) if pair else None)} for unit in found.parts]
    st.dataframe(rows, hide_index=True, placeholder="–", alt="The verdict part by part", column_config=_columns())
    st.caption(
        "**How to read:** where the inputs overlap, two experts react to the same things. Where the outputs overlap, they change "
        "the same things."
    )


def _part(found: Verdict, unit: str, pair: PairVerdict | None) -> dict[str, Any]:
    if pair is not None:
        return {"word": pair.part_words[unit], **_in_percent(numbers(pair.parts[unit]))}
    every = [_in_percent(numbers(one.parts[unit])) for one in found.pairs]
    return {name: _mean([row[name] for row in every]) for name in every[0]}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
