"""The figure of a verdict: every pair of experts as a square, by its word or by one of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from dcmerge.plots.style import PINNED, SCALE, colour_bar, square_size, titled
from dcmerge.studies.verdict import CONFLICT, DEAD, DROWNS, DUPLICATE, INDEPENDENT, REINFORCING, WORDS, PairFacts, Verdict

WORD = "word"
#: What a square can show besides its word: a number of the pair, and how it is written.
NUMBERS: dict[str, tuple[Callable[[PairFacts], float | None], str]] = {
    "cosine": (lambda facts: facts.cosine, ".2f"),
    "overlap, times chance": (lambda facts: facts.overlap, ".1f"),
    "opposite signs, %": (lambda facts: 100 * facts.conflict, ".0f"),
    "norm ratio": (lambda facts: facts.norm_ratio, ".2f"),
}
#: Seen on both grounds; trouble is red, yellow and grey.
_COLOURS = {
    DEAD: "#5b6672",
    DUPLICATE: "#8a63d2",
    CONFLICT: "#c0487b",
    DROWNS: "#d08a1c",
    REINFORCING: "#2f9e77",
    INDEPENDENT: "#a9b1bc",
}
_ROW, _FEW = 44, 12
#: From this share of the range on, a square is so light that its text is dark.
_LIGHT = 0.6


def pair_matrix(found: Verdict, titles: Mapping[str, str], shown: str = WORD, chosen: tuple[str, str] | None = None) -> go.Figure:
    """Experts by experts, each pair once; by word, or coloured by a number of ``NUMBERS``. The ``chosen`` pair is ringed."""
    figure = go.Figure()
    traces = (
        [(word, [one for one in found.pairs if one.word == word]) for word in WORDS] if shown == WORD else [("", found.pairs)]
    )
    size = square_size(len(found.tasks), width=420, largest=34)
    for word, pairs in traces:
        if not pairs:
            continue
        values = [None if shown == WORD else NUMBERS[shown][0](one.whole) for one in pairs]
        figure.add_scatter(
            x=[titles[one.first] for one in pairs],
            y=[titles[one.second] for one in pairs],
            name=word,
            mode="markers" if shown == WORD or len(found.tasks) > _FEW else "markers+text",
            text=None if shown == WORD else [_written(value, NUMBERS[shown][1]) for value in values],
            customdata=[[one.first, one.second, one.word, one.reason] for one in pairs],
            marker={
                "symbol": "square",
                "size": size,
                "line": {"width": [3 if chosen == (one.first, one.second) else 0 for one in pairs], "color": PINNED},
                **({"color": _COLOURS[word]} if shown == WORD else _scale(values, shown)),
            },
            textfont={"color": _ink(values), "size": 11},
            hovertemplate="%{x} and %{y}: %{customdata[2]}<br>%{customdata[3]}<extra></extra>",
        )
    names = [titles[task] for task in found.tasks]
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=names, showgrid=False)
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names, autorange="reversed", showgrid=False)
    counts = ", ".join(f"{count} {word}" for word, count in found.words().items())
    title = f"Every pair of experts in one word: {counts}" if shown == WORD else f"Every pair of experts: {shown}"
    return titled(figure, title, "expert", "expert", 130 + _ROW * len(names))


def _scale(values: list[float | None], shown: str) -> dict[str, object]:
    known = [value for value in values if value is not None]
    return {
        "color": [value if value is not None else min(known, default=0.0) for value in values],
        "colorscale": SCALE,
        "colorbar": colour_bar(shown),
    }


def _ink(values: list[float | None]) -> list[str]:
    """Dark letters on the light end of the scale."""
    known = [value for value in values if value is not None]
    light = min(known, default=0.0) + _LIGHT * (max(known, default=0.0) - min(known, default=0.0))
    return ["#000000" if value is not None and value > light else "#ffffff" for value in values]


def _written(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
