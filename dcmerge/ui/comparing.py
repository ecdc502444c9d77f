"""Comparisons in the background, as the Compare page sees them: the only module of the pages that knows how they are run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import streamlit as st

from dcmerge.comparison import Comparison, Row, compare
from dcmerge.errors import Cancelled, InputError
from dcmerge.model_sets import ModelSet

RUNNING, DONE, FAILED, CANCELLED, INTERRUPTED = "running", "done", "failed", "cancelled", "interrupted"
Spec = Mapping[str, Any]


@dataclass
class Shown:
    """One comparison: what was asked for, how far it is, and the rows that are ready."""

    id: str
    spec: Spec
    started: datetime
    state: str = RUNNING
    share: float = 0.0
    text: str = "starting"
    error: str = ""
    comparison: Comparison | None = None
    stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def is_running(self) -> bool:
        return self.state == RUNNING

    @property
    def can_resume(self) -> bool:
        return self.state in (FAILED, CANCELLED, INTERRUPTED)


@st.cache_resource(show_spinner=False)
def _known() -> dict[str, Shown]:
    return {}


_numbers = itertools.count(1)


def submit(models: ModelSet, spec: Spec) -> str:
    """Start a comparison; returns its id."""
    shown = Shown(f"{datetime.now():%H%M%S}-{next(_numbers)}", spec, datetime.now())
    _known()[shown.id] = shown
    _start(models, shown)
    return shown.id


def _start(models: ModelSet, shown: Shown) -> None:
    threading.Thread(target=_run, args=(models, shown), name=f"comparison {shown.id}", daemon=True).start()


def _run(models: ModelSet, shown: Shown) -> None:
    """Run to the end, whatever comes; rows that an earlier run has finished are kept."""
    spec = shown.spec
    limits = {name: spec[name] for name in ("split", "limit", "val_limit", "diagnosed")}
    parameters = {one["slug"]: one["parameters"] for one in spec["methods"]}
    rows: list[Row] = []
    earlier = shown.comparison.rows if shown.comparison else ()

    def ready(row: Row) -> None:
        rows.append(row)
        shown.comparison = Comparison(spec["split"], spec["limit"], spec["val_limit"], tuple(rows))

    def tell(share: float, text: str) -> None:
        shown.share, shown.text = share, text

    try:
        compare(models.bench, list(parameters), parameters, **limits, finished=earlier, on_row=ready, progress=tell,
                cancelled=shown.stop.is_set)  # fmt: skip
        shown.state = DONE
    except Cancelled:
        shown.state = CANCELLED
    except InputError as error:
        shown.state, shown.error = FAILED, str(error)
    except Exception as error:
        shown.state, shown.error = FAILED, f"{type(error).__name__}. The terminal shows the details."
        raise


def listed(models: ModelSet) -> list[Shown]:
    """The comparisons on this set as they are now, newest first."""
    return [replace(shown) for shown in reversed(_known().values()) if shown.spec["set"] == models.name]


def find(id: str) -> Shown | None:
    return _known().get(id)


def cancel(id: str) -> None:
    _known()[id].stop.set()


def resume(models: ModelSet, id: str) -> str:
    """Go on with a comparison that stopped; returns the id it goes on under."""
    shown = _known()[id]
    shown.state, shown.error, shown.stop = RUNNING, "", threading.Event()
    _start(models, shown)
    return id
