"""Every term of art explained once (``glossary.yaml``): the tooltips of the pages and docs/glossary.md come from here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dcmerge.checkpoints.documents import read_document

_FILE = Path(__file__).with_name("glossary.yaml")


@dataclass(frozen=True)
class Term:
    """One term: ``text`` is one or two sentences; ``formula`` and ``source`` are empty where there is none."""

    name: str
    section: str
    text: str
    formula: str = ""
    source: str = ""
    also: tuple[str, ...] = ()

    @property
    def explained(self) -> str:
        """The whole explanation in Markdown, as a tooltip shows it."""
        formula = f" `{self.formula}`" if self.formula else ""
        source = f" ({self.source})" if self.source else ""
        return f"{self.text}{formula}{source}"


@cache
def terms() -> dict[str, Term]:
    """All terms by name, in the order of the file."""
    return {
        name: Term(name, section, entry["text"], entry.get("formula", ""), entry.get("from", ""), tuple(entry.get("also", ())))
        for section, entries in read_document(_FILE).items()
        for name, entry in entries.items()
    }


@cache
def _by_any_name() -> dict[str, Term]:
    return {known.casefold(): one for one in terms().values() for known in (*one.also, one.name)}


def found_term(name: str) -> Term | None:
    """The term of that name or other name, in any case; None where the glossary has none."""
    return _by_any_name().get(name.casefold())


def term(name: str) -> str:
    """The explanation of a term, as a tooltip shows it. Raises KeyError for a name that the glossary lacks."""
    found = found_term(name)
    if found is None:
        raise KeyError(f"the glossary has no term {name!r}")
    return found.explained


def explained(*names: str) -> str:
    """Several terms in one tooltip: a paragraph each, led by its name. Raises KeyError for a name that the glossary lacks."""
    return term(names[0]) if len(names) == 1 else "\n\n".join(f"**{name}**: {term(name)}" for name in names)


def as_markdown() -> str:
    """The page docs/glossary.md: a section for each group of terms."""
    lines = [
        "# Glossary",
        "",
        "After this page you can read every chart and table of the dashboard. Its tooltips say the same: both are made from",
        "`dcmerge/studies/glossary.yaml`, and `python -m tools.glossary` writes the list anew.",
    ]
    section = ""
    for one in terms().values():
        if one.section != section:
            section = one.section
            lines += ["", f"## {section}"]
        lines += ["", f"**{one.name}**: {one.explained}"]
    return "\n".join(lines) + "\n"
