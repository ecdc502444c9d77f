"""What a report holds, whatever it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from dcmerge.merging.recipe import package_versions


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure of ``plots`` with its title, and the sentence on how to read it."""

    figure: go.Figure
    reading: str


@dataclass(frozen=True, eq=False)
class Section:
    """A heading, what is said below it, figures, and rows of a table with the same keys."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    rows: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, eq=False)
class Report:
    """``about``: name -> text, what a reader must know first. ``repeat``: commands, or files, that make it again, by title.

    ``values``: what can be asked for by name in a bound, accuracies as shares. ``data``: everything as plain data for JSON.
    """

    title: str
    about: Mapping[str, str]
    sections: Sequence[Section]
    values: Mapping[str, float] = field(default_factory=dict)
    repeat: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Versions of the packages that matter, where the report was made."""
        return package_versions()

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "title": self.title,
            "about": dict(self.about),
            "values": dict(self.values),
            "repeat": dict(self.repeat),
            "environment": self.environment,
            **self.data,
        }
