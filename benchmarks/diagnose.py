"""(w) The questions of the Diagnose page in a real Chromium, on both demo sets: from visit or click to the whole answer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from playwright.sync_api import Browser, Page, expect

from benchmarks.browser import SETTLE, until_whole
from benchmarks.measuring import Row
from dcmerge.runtime.state_files import JOBS_VARIABLE
from dcmerge.vectors.cache.disk import FOLDER_VARIABLE as CACHE_VARIABLE
from dcmerge.zoo import ZOOS
from tools.app_server import RunningApp, running_app
from tools.browser import chromium, errors_shown, new_page, open_page, wait_idle

_MAP, _STUDY = 120.0, 600.0  # seconds that a map and a study may take
_PATIENCE = 1800.0


class _Question(NamedTuple):
    """One question with its defaults: the button that asks it ("" where the visit does), and what shows the answer."""

    name: str
    button: str
    answer: str
    target: float = _MAP


_QUESTIONS = (
    _Question("Will it merge?", "", "Every pair of experts in one word"),
    _Question("Every matrix", "", "By task and matrix: DirSim"),
    _Question("Lost images", "Show the images", "What the merge changes about the mistakes"),
    _Question("Damage map", "Make the map", "Change of accuracy when one part is changed"),
    _Question("Does it tell?", "Start the study", "Rank correlation of each measure", _STUDY),
)


def diagnose() -> Iterator[Row]:
    """Every question as it comes; an empty cache, no run and no job before the first one of a set."""
    with chromium() as chrome:
        for zoo, title in ZOOS.items():
            with tempfile.TemporaryDirectory() as place:
                variables = {CACHE_VARIABLE: f"{place}/cache", JOBS_VARIABLE: f"{place}/jobs"}
                with running_app(variables=variables) as app:
                    for question in _QUESTIONS:
                        took = _asked(chrome, app, zoo, question)
                        what = f"{title}: {question.name}{', after the click' if question.button else ''}, whole"
                        yield Row("w", what, None, took, None, f"< {question.target / 60:.0f} min", 1)


def _asked(chrome: Browser, app: RunningApp, zoo: str, question: _Question) -> float:
    page = new_page(chrome, viewport={"width": 1280, "height": 900})
    began = time.perf_counter()
    open_page(page, f"{app.url}/Diagnose?set={zoo}&diagnose={question.name}", timeout=_PATIENCE)
    if question.button:
        button = page.get_by_role("button", name=question.button)
        expect(button).to_be_enabled(timeout=1000 * _PATIENCE)
        wait_idle(page, _PATIENCE)
        began = time.perf_counter()
        button.click()
    _answered(page, question)
    took = time.perf_counter() - began - SETTLE
    assert not errors_shown(page)
    page.context.close()
    return took


def _answered(page: Page, question: _Question) -> None:
    """Its figure is there, no job is still at work, and no part is still to come."""
    limit = 1000 * _PATIENCE
    expect(page.get_by_role("figure", name=question.answer).first).to_be_visible(timeout=limit)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=limit)
    until_whole(page, _PATIENCE)
