"""How a run is called: by the name that a person gave it, else by method, settings and α."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dcmerge.methods import methods
from dcmerge.methods.declare import values_text
from dcmerge.runs import Run
from dcmerge.studies.measuring import TITLES, VARIANTS


def title_of(run: Run) -> str:
    """The method's title, or what a run of a method that is not here calls it."""
    if run.variant in VARIANTS:
        return VARIANTS[run.variant].title
    found = methods().get(run.method)
    return found.title if found else TITLES.get(run.method, run.variant or run.method)


def changed(slug: str, values: Mapping[str, Any]) -> str:
    """The parameters that are not the method's defaults; all of a method that is not here."""
    known = methods().get(slug)
    return values_text(known.changed(values) if known else values)


def settings_of(run: Run) -> str:
    """What differs from the method's defaults, and the mix; empty where nothing does."""
    return "; ".join(filter(None, (changed(run.method, run.values), run.mix_text)))


def described(slug: str, values: Mapping[str, Any], scale: float) -> str:
    """Method, changed parameters and α in one line."""
    other = changed(slug, values)
    return f"{methods()[slug].title} {f'({other}) ' if other else ''}α={scale:g}"


def label_of(run: Run) -> str:
    """The name that a person gave it, else what it is in one line."""
    if run.name:
        return run.name
    other = settings_of(run)
    return f"{title_of(run)}{f' ({other})' if other else ''}{'' if run.alpha is None else f' α={run.alpha:g}'}"
