"""The mixer on the pages: how much each expert counts in a merge, and how much is taken at which depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from dcmerge.studies.glossary import term
from dcmerge.studies.sweep.mixing import FACTOR, FIRST, LAST, WEIGHT
from dcmerge.ui.controls import asked_number
from dcmerge.ui.shell import Page, readable_errors
from dcmerge.ui.text import plain
from dcmerge.ui.view import choose, forget, is_any_chosen, remembered
from dcmerge.vectors.mix import CONSTANT, Mix

_PREFIX, _OPEN = "mix.", "mixer.open"
_BY_DEPTH, _ALPHA = f"{_PREFIX}depths", f"{_PREFIX}alpha"
#: How α may change over the blocks.
_CONSTANT, _LINEAR, _BLOCKS = "constant", "linear", "blocks"
_SHAPES = {_CONSTANT: "the same everywhere", _LINEAR: "evenly from the first to the last", _BLOCKS: "a value for each block"}
_COLUMNS, _MOST_BLOCKS = 4, 48


def mixer_card(page: Page) -> Page:
    """The mixer, folded until it is used; the page whose set is mixed so."""
    is_open = st.session_state[_OPEN] = st.session_state.get(_OPEN, False) or is_any_chosen(_PREFIX)
    with st.expander("Mixer: how much each expert counts, and at which depth", icon=":material/equalizer:", expanded=is_open):
        st.caption(
            "A weight multiplies an expert's task vector before the merge. A mean over the experts divides by the sum of the "
            "weights. In the other methods an expert of weight 0 still has its share of the directions."
        )
        with readable_errors():
            mix = Mix.of(*_experts(page), depth=_alpha_over_depth(page))
            st.button("Set all to 1", icon=":material/restart_alt:", disabled=not mix, on_click=forget, args=(_PREFIX,))
            mixed = replace(page, models=page.models.mixed(mix))
            if text := mixed.models.vectors.mix.text:
                st.caption(plain(f"In every merge on this page: {text}."))
            return mixed
    st.stop()


def _experts(page: Page) -> tuple[dict[str, float], dict[str, Sequence[float]]]:
    """Weights, and where they shall change over depth the profiles."""
    titles, by_depth = page.models.task_titles, False
    if _blocks(page) > 1:
        by_depth = remembered(
            st.toggle,
            "Weights that change over depth",
            key=_BY_DEPTH,
            default=False,
            help="Each expert then has one weight in the first block and one in the last, and even steps between.",
        )
    weights, depths = {}, {}
    columns = st.columns(_COLUMNS) * len(titles)
    for (task, title), column in zip(titles.items(), columns, strict=False):
        with column:
            if by_depth:
                ends = [_slider(f"{title}, {end} block", f"{end}.{task}") for end in ("first", "last")]
                depths[task] = ends
            else:
                weights[task] = _slider(f"Weight of {title}", f"{WEIGHT}{task}")
    return weights, depths


def _alpha_over_depth(page: Page) -> Sequence[float]:
    """α's profile: what α is multiplied by from the first block to the last."""
    blocks = _blocks(page)
    if blocks < 2:
        return CONSTANT
    shape = remembered(
        st.selectbox,
        "α over depth",
        key=_ALPHA,
        default=_CONSTANT,
        options=[one for one in _SHAPES if one != _BLOCKS or blocks <= _MOST_BLOCKS],
        format_func=_SHAPES.get,
        help=f"{term('α')} Here it is multiplied by a value that depends on the block. What lies outside the blocks takes the "
        "value of the first.",
    )
    if shape == _CONSTANT:
        return CONSTANT
    names = {FIRST: "first block", LAST: "last block"}
    if shape == _BLOCKS:
        names = {f"block.{number}": f"block {number}" for number in range(blocks)}
    columns = st.columns(min(len(names), 2 * _COLUMNS)) * len(names)
    values = []
    for (key, name), column in zip(names.items(), columns, strict=False):
        with column:
            values.append(_slider(f"α times, {name}", key))
    return values


def _slider(label: str, name: str) -> float:
    key = f"{_PREFIX}{name}"
    asked = asked_number(FACTOR, key)  # what a sweep found may lie outside of the usual range
    ends = [*FACTOR.usual_range, *([] if asked is None else [asked])]
    return remembered(
        st.slider,
        plain(label),
        key=key,
        default=1.0,
        min_value=float(min(ends)),
        max_value=float(max(ends)),
        step=FACTOR.step,
        format="%.2f",
    )


def _blocks(page: Page) -> int:
    """Of the deepest stack; 0 where no name tells a block."""
    return max(page.models.vectors.stacks.values(), default=0)


def take(mix: Mix) -> None:
    """For a callback: set the mixer of all pages."""
    forget(_PREFIX)
    for key, value in _widgets(mix):
        choose(key, value)


def _widgets(mix: Mix) -> Iterator[tuple[str, Any]]:
    """Keys and values of the widgets that show a mix of weights, or of linear profiles."""
    if any(len(profile) > 1 for profile in mix.depths.values()):
        yield _BY_DEPTH, True
        for task in {**mix.weights, **mix.depths}:
            weight, profile = mix.weights.get(task, 1.0), mix.depths.get(task, CONSTANT)
            yield f"{_PREFIX}first.{task}", weight * profile[0]
            yield f"{_PREFIX}last.{task}", weight * profile[-1]
    else:
        for task in {**mix.weights, **mix.depths}:
            yield f"{_PREFIX}{WEIGHT}{task}", mix.weights.get(task, 1.0) * mix.depths.get(task, CONSTANT)[0]
    if len(mix.depth) == 2:
        yield _ALPHA, _LINEAR
        yield from ((f"{_PREFIX}{FIRST}", mix.depth[0]), (f"{_PREFIX}{LAST}", mix.depth[1]))
    elif mix.depth != CONSTANT:
        yield _ALPHA, _BLOCKS
        yield from ((f"{_PREFIX}block.{number}", value) for number, value in enumerate(mix.depth))


def axis_labels(page: Page) -> dict[str, str]:
    """What a sweep can vary of the mixer, and how it is called on screen. The address bar separates names by commas."""
    weights = {f"{WEIGHT}{task}": f"weight of {title}" for task, title in page.models.task_titles.items() if "," not in task}
    return weights | ({FIRST: "α times, first block", LAST: "α times, last block"} if _blocks(page) > 1 else {})
