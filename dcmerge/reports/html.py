"""A report as one HTML file: nothing is fetched, the figures react, and no text of a file becomes code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import plotly.io
from plotly.offline import get_plotlyjs

from dcmerge.plots.drawn import summary
from dcmerge.plots.style import on_white, readable
from dcmerge.reports.model import Figure, Report, Section

#: Whatever a name in it pretends to be, this page fetches nothing. Plotly makes functions for some of its charts.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:"
#: Longer texts are folded.
_SHORT = 300
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #0e1620; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; } dt { color: #46525f; } dd { margin: 0; }
figure { margin: 1rem 0; } figcaption { color: #46525f; font-size: .9rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d3dae3; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { background: #f2f5f9; font-weight: 600; }
pre { background: #f2f5f9; padding: .8rem; overflow-x: auto; border-radius: 6px; font-size: .85rem; }
"""


def as_html(report: Report) -> str:
    """The whole file as text, about 5 MB where it has figures: plotly is in it once."""
    has_figures = any(section.figures for section in report.sections)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style>",
        *([f"<script>{get_plotlyjs()}</script>"] if has_figures else []),
        f"</head><body><h1>{escape(report.title)}</h1>",
        _definitions(report.about),
        *(line for place, section in enumerate(report.sections) for line in _section(section, place)),
        *_repeat(report),
        "</body></html>",
    ]
    return "\n".join(parts)


def _definitions(about: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in about.items())}</dl>"


def _section(section: Section, place: int) -> Iterator[str]:
    yield f"<h2>{escape(section.title)}</h2>"
    if section.text:
        yield f"<p>{escape(section.text)}</p>"
    for number, figure in enumerate(section.figures):
        yield _figure(figure, f"figure-{place}-{number}")
    if section.rows:
        yield _table(section.rows)


def _figure(one: Figure, id: str) -> str:
    layout: Any = one.figure.layout  # plotly makes its attributes at run time
    title = str(layout.title.text or "")
    drawn = readable(one.figure).update_layout(title=None, paper_bgcolor="white", plot_bgcolor="white", template="plotly_white")
    data = on_white(str(plotly.io.to_json(drawn))).replace("</", "<\\/")
    config = json.dumps({"displaylogo": False, "responsive": True})
    label = escape(f"{title}. {summary(one.figure)}".strip(), quote=True)
    return (
        f'<h3>{escape(title)}</h3><figure><div id="{id}" role="img" aria-label="{label}"></div>'
        f"<script>{{ const f = {data}; Plotly.newPlot({json.dumps(id)}, f.data, f.layout, {config}); }}</script>"
        f"<figcaption><b>How to read:</b> {escape(one.reading)}</figcaption></figure>"
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(str(name))}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(_cell(row.get(name)))}</td>' for name in names)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _repeat(report: Report) -> Iterator[str]:
    yield "<h2>How to repeat it</h2>"
    for title, text in report.repeat.items():
        state = " open" if len(text) < _SHORT else ""
        yield f"<details{state}><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
    yield "<h3>Where it was made</h3>"
    yield _definitions(report.environment)
