"""Cards of the Methods page: the catalogue, made from what every method declares of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import streamlit as st

from dcmerge.methods import NEEDS, Method, fitting_methods, load_named, methods, plugin_notes
from dcmerge.methods.declare import Declared, value_text
from dcmerge.methods.reported import FAMILIES, Reported, reported
from dcmerge.studies.glossary import term
from dcmerge.ui.shell import Page
from dcmerge.ui.text import hundredfold, percent, plain
from dcmerge.ui.view import remembered
from dcmerge.zoo.results import DemoResults, demo_results

_MODEL = "ViT-B/32"
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def catalogue_cards(page: Page) -> None:
    """The overview, then every method that it shows."""
    for note in (*load_named(), *plugin_notes()):
        st.warning(plain(note), icon=":material/extension_off:")
    ours = demo_results()  # read once: every card below has numbers of it
    shown = overview_card(page, ours)
    for title, own in _groups(shown).items():
        st.header(title)
        for method in own:
            method_card(page, method, ours)


#: Headings of the cards, by what a method needs: the first that holds.
_GROUPS = (
    ("They learn, step by step", {"training"}),
    ("They look at images", {"images"}),
    ("For adapters", {"lora"}),
    ("From weights alone", set()),
)


def _groups(shown: list[Method]) -> dict[str, list[Method]]:
    """The methods below their headings, those that need least first."""
    found: dict[str, list[Method]] = {title: [] for title, _ in reversed(_GROUPS)}
    for one in shown:
        found[next(title for title, needs in _GROUPS if needs <= set(one.needs))].append(one)
    return {title: own for title, own in found.items() if own}


def overview_card(page: Page, ours: DemoResults | None) -> list[Method]:
    """The filter and one row a method; returns the methods that are shown."""
    known, (fitting, obstacles) = methods(), fitting_methods(page.models.vectors, page.models.bench)
    with st.container(border=True):
        words = remembered(
            st.text_input,
            "Search",
            key="find",
            default="",
            placeholder="a name, an idea, a year, an author",
            help="Shows the methods whose name, idea or source has all of these words.",
        )
        left, right = st.columns([2, 1], vertical_alignment="bottom")
        with left:
            allowed = _needs_filter(known)
        with right:
            only = remembered(
                st.toggle,
                "Only what can merge this set",
                key="fits",
                default=False,
                help=f"Hides the methods that cannot merge the set of the sidebar: {plain(page.models.title)}.",
            )
        able = [m for m in known.values() if set(m.needs) <= allowed and (m.slug in fitting or not only)]
        shown = [m for own in _groups(able).values() for m in own if _is_found(m, words)]
        if not shown:
            reason = "No method has all of these words." if able else "No method works with so little. Allow more above."
            st.info(reason, icon=":material/info:")
            return []
        st.dataframe(
            [_overview_row(m, obstacles, ours) for m in shown],
            hide_index=True,
            alt="All methods",
            height="content",
            placeholder="–",
            column_config=_overview_columns(),
        )
        st.caption(_reading(ours))
    return shown


def _is_found(method: Method, words: str) -> bool:
    """Whether its name, idea or source has all of these words, in any case."""
    told = f"{method.slug} {method.label} {method.idea} {method.source}".casefold()
    return all(word in told for word in words.casefold().split())


def _needs_filter(known: Mapping[str, Method]) -> set[str]:
    """What the user has; every method works on the experts' weights."""
    other = sorted({need for method in known.values() for need in method.needs} - {"weights"})
    have = remembered(
        st.multiselect,
        "Besides the weights of the experts I have",
        key="needs",
        default=other,
        options=other,
        format_func=NEEDS.get,
        help="Hides the methods that need anything else.",
    )
    return {"weights", *have}


def _overview_row(method: Method, obstacles: Mapping[str, str], ours: DemoResults | None) -> dict[str, Any]:
    measured = ours.rows.get(method.slug) if ours else None
    best = [r.value for r in reported(method.slug) if (r.family, r.model, r.tasks) == ("TALL-masks", _MODEL, 8)]
    return {
        "method": method.title,
        "asks besides for": ", ".join(n for n in method.needs if n != "weights") or None,
        "demo": hundredfold(measured.accuracy) if measured else None,
        "normalised": hundredfold(measured.normalised) if measured else None,
        "reported": best[0] if best else None,
        "this set": obstacles.get(method.slug, "can be merged"),
        "controls": len(method.parameters),
        "returns": method.returns,
        "source": _link(method) or None,
        **({"plugin": method.origin.name} if method.origin else {}),
    }


def _overview_columns() -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "asks besides for": text(
            help="What it needs besides the weights of the experts. "
            + "; ".join(f"{name}: {words}" for name, words in NEEDS.items() if name != "weights")
        ),
        "returns": text(help="One model for all tasks, or one with a part for each task."),
        "controls": number(help="How many settings it has besides α. Each is explained below."),
        "demo": number(format="%.1f %%", help=f"Measured by us on the demo, with α chosen on validation. {term('accuracy')}"),
        "normalised": number(format="%.1f %%", help=f"Measured by us on the demo. {term('normalised accuracy')}"),
        "reported": number(
            format="%.1f %%",
            help=f"The mean accuracy that papers report for {_MODEL} on 8 tasks (TALL-masks checkpoints). More are below.",
        ),
        "this set": text(help="Whether it can merge the set in the sidebar."),
        "plugin": text(help="The file or package that brought the method. Empty for what is built in."),
        "source": st.column_config.LinkColumn(display_text=r"abs/(.*)", help="The paper on arXiv."),
    }


def _reading(ours: DemoResults | None) -> str:
    measured = f"*demo* was measured on the {ours.measured_on}" if ours else "our numbers on the demo are not made yet"
    return (
        f"**How to read:** {measured}; *reported* is CLIP {_MODEL}, another model on other tasks. Compare the order of the "
        "methods, not the numbers. Click the name of a column to sort."
    )


def method_card(page: Page, method: Method, ours: DemoResults | None) -> None:
    """One method: idea, formula, needs, parameters, source, and numbers."""
    with st.expander(plain(method.label) if method.origin else method.title):
        left, right = st.columns([3, 2])
        left.markdown(plain(method.idea))
        left.latex(method.formula)
        _facts(right, page, method)
        _parameters(method)
        _numbers(method, ours)


def _facts(place: Any, page: Page, method: Method) -> None:
    link, obstacle = _link(method), method.obstacle(page.models.vectors, page.models.bench)
    place.markdown(f"**Needs** {', '.join(NEEDS[need] for need in method.needs)}; **returns** {method.returns}")
    place.markdown(f"**Source** {f'[{plain(method.source)}]({link})' if link else plain(method.source)}")
    if method.origin:
        place.markdown(f"**Plugin** {plain(method.origin.label)}, SHA-256 `{method.origin.sha256}`")
    else:
        place.markdown(f"**Differs from the publication** {plain(method.differs)}" if method.differs else "**As published**")
    usual = method.usual_scale_for(page.models.vectors, {})
    place.markdown(f"**Slug** `{method.slug}`; usual α = {usual:g}")
    if obstacle:
        place.info(f"It cannot merge this set: it {plain(obstacle)}.", icon=":material/block:")
    else:
        _invitation(place, page, method)


def _invitation(place: Any, page: Page, method: Method) -> None:
    """A link to where this set can be merged with the method: what trains is not merged live."""
    if method.trains and page.models.bench:
        place.page_link(
            "pages/4_Compare.py",
            label="Compare it on this set",
            icon=":material/leaderboard:",
            query_params={"compared": method.slug, "set": page.models.name},
        )
    elif not method.trains:
        place.page_link(
            "pages/3_Merge.py",
            label="Merge this set with it",
            icon=":material/merge:",
            query_params={"method": method.slug, "set": page.models.name},
        )


def _link(method: Method) -> str:
    """The address of the paper; empty where the source is not on arXiv."""
    found = _ARXIV.search(method.source)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


def _parameters(method: Method) -> None:
    st.markdown("**Parameters**")
    if not method.parameters:
        st.markdown("None, besides the scale α.")
        return
    rows = [_parameter_row(declared) for declared in method.parameters.values()]
    # A table, not a data frame: it shows every word of the help, and reads its cells as Markdown.
    st.table(
        [{title: plain(text) for title, text in row.items()} for row in rows],
        hide_index=True,
        border="horizontal",
        alt=f"Parameters of {method.title}",
    )


def _parameter_row(declared: Declared) -> dict[str, str]:
    constraint = declared.constraint
    auto = getattr(constraint, "auto", "")
    return {
        "parameter": constraint.title,
        "name": declared.name,
        "default": value_text(declared.default),
        "range": constraint.expected,
        "what it does": constraint.help + (f" Auto: {auto}." if auto else ""),
    }


def _numbers(method: Method, ours: DemoResults | None) -> None:
    st.markdown("**Numbers**: mean top-1 accuracy over the tasks")
    _demo_numbers(method, ours)
    rows = [_reported_row(entry) for entry in reported(method.slug)]
    if not rows:
        st.caption("We found no number for CLIP's 8, 14 or 20 tasks that a primary source confirms.")
        return
    families = sorted({entry.family for entry in reported(method.slug)}, key=list(FAMILIES).index)
    st.dataframe(
        rows,
        hide_index=True,
        placeholder="",
        height="content" if len(rows) < 9 else 320,
        alt=f"Reported numbers of {method.title}",
        column_config={
            "accuracy": st.column_config.NumberColumn(format="%.1f %%"),
            "kind": st.column_config.TextColumn(help=term("normalised accuracy")),
            "checkpoints": st.column_config.TextColumn(help="The fine-tuned models that were merged."),
        },
    )
    st.caption(
        "**Checkpoints** (compare only rows with the same ones): " + "; ".join(f"{f}: {FAMILIES[f]}" for f in families) + "."
    )


def _demo_numbers(method: Method, ours: DemoResults | None) -> None:
    measured = ours.rows.get(method.slug) if ours else None
    if ours is None or measured is None:
        st.caption("On the demo: not measured.")
        return
    scale = f"α = {measured.scale:g} ({plain(measured.scale_origin)})" if measured.scale is not None else "no α"
    st.markdown(
        f"On the demo: **{percent(measured.accuracy)}**, normalised **{percent(measured.normalised)}**; "
        f"{ours.measured_on}; {scale}."
    )


def _reported_row(entry: Reported) -> dict[str, Any]:
    return {
        "accuracy": entry.value,
        "kind": "normalised" if entry.normalised else "absolute",
        "model": entry.model,
        "tasks": entry.tasks,
        "checkpoints": entry.family,
        "reported in": entry.source,
        "note": entry.note,
    }
