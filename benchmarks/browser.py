"""(f) The app in a real Chromium: start to first chart, ρ to redrawn spectra, α to accuracy, on the demo."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator

from playwright.sync_api import Locator, Page

from benchmarks.measuring import Row
from tools.app_server import RunningApp, running_app
from tools.browser import chromium, new_page, open_page, wait_idle

CHART = ".js-plotly-plot .main-svg"
SMOOTHED = """() => { const p = [...document.querySelectorAll('.js-plotly-plot')].find(e => e.data && e.data.length >= 24);
  return p ? JSON.stringify(Array.from(p.data[1].y).slice(0, 3)) : ''; }"""

#: True once no script runs, nothing is unfinished, no bar says how far the rest is, and that has lasted.
_WHOLE = """settle => {
  const idle = document.querySelector('[data-testid=stApp][data-test-script-state=notRunning]');
  const coming = '[data-testid=stProgress], [data-testid=stSpinner], [data-testid=stSkeleton], [data-stale=true]';
  if (!idle || document.querySelector(coming)) { window.__wholeSince = undefined; return false; }
  window.__wholeSince ??= performance.now();
  return performance.now() - window.__wholeSince >= settle;
}"""
SETTLE = 1.5  # seconds


def browser(runs: int) -> Iterator[Row]:
    """Every number is what a person waits for, from the key press (or the start of the process) to the drawn change."""
    with chromium() as chrome, tempfile.TemporaryDirectory() as cache:
        variables = {"DCMERGE_CACHE": cache}
        starts = [_first_chart(chrome, variables) for _ in range(max(2, runs))]
        yield Row(
            "f",
            "start of the process to the first chart of the Spectra page",
            None,
            statistics.median(starts[1:]),
            None,
            "< 6 s",
            len(starts) - 1,
            f"with a filled cache; with an empty one {starts[0]:.1f} s",
        )
        with running_app(variables=variables) as app:
            _opened(chrome, app)
            again = [_opened(chrome, app) for _ in range(max(2, runs))]
            yield Row(
                "f",
                "of it, the browser's own share: the page opened where the server has everything ready",
                None,
                statistics.median(again),
                None,
                "",
                len(again),
            )
            page = new_page(chrome, viewport={"width": 1280, "height": 900})
            waits = []
            for block in range(4):  # five values each, none of them seen before
                layer = f"visual.transformer.resblocks.{block}.mlp.c_fc.weight"
                open_page(page, f"{app.url}/Spectra?smoothing=linear&rho=3.5&layer={layer}", timeout=180)
                waits += _waits(page, page.get_by_role("slider").first, SMOOTHED, "ArrowLeft", 5)
            yield row("ρ moved on the Spectra page to the redrawn lines", waits, "p95 < 0.4 s")
            open_page(page, f"{app.url}/Merge?smoothing=linear&dc_merge.alpha=0.5", timeout=180)
            waits = rests(page, page.get_by_role("slider").last, 8)
            yield row("α moved on the Merge page to the new accuracy (50 images a task)", waits, "< 3 s")
            yield row("Cancel clicked during the search for α to the word that it was", [_cancelled(page) for _ in range(4)], "")


def until_whole(tab: Page, timeout: float) -> None:
    """Wait until nothing of the page is still to come, and that has lasted ``SETTLE`` seconds."""
    tab.wait_for_function(_WHOLE, arg=1000 * SETTLE, timeout=1000 * timeout, polling=50)


def _first_chart(chrome: object, variables: dict[str, str]) -> float:
    began = time.perf_counter()
    with running_app(variables=variables) as app:
        _opened(chrome, app)
        return time.perf_counter() - began


def _opened(chrome: object, app: RunningApp) -> float:
    """Seconds from a new visitor's first request to the first chart."""
    began = time.perf_counter()
    page = new_page(chrome, viewport={"width": 1280, "height": 900})  # type: ignore[arg-type]
    page.goto(f"{app.url}/Spectra", wait_until="domcontentloaded")
    page.wait_for_selector(CHART, timeout=180_000)
    took = time.perf_counter() - began
    page.context.close()
    return took


def _waits(page: Page, slider: Locator, state: str, key: str, presses: int) -> list[float]:
    """Seconds from each key press on the slider until the state on the screen is another one."""
    waits = []
    for _ in range(presses):
        before = page.evaluate(state)
        slider.focus()
        began = time.perf_counter()
        slider.press(key)
        while page.evaluate(state) == before:
            if time.perf_counter() - began > 30:
                raise RuntimeError(f"nothing changed on {page.url} within 30 s")
            page.wait_for_timeout(10)
        waits.append(time.perf_counter() - began)
        wait_idle(page)
    return waits


def rests(page: Page, slider: Locator, presses: int, timeout: float = 60.0) -> list[float]:
    """Seconds from each key press until the page is at rest again: a new α can give the same accuracy."""
    waits = []
    for _ in range(presses):
        slider.focus()
        began = time.perf_counter()
        slider.press("ArrowRight")
        page.wait_for_timeout(250)  # the slider waits 0.2 s before it tells the server
        wait_idle(page, timeout, settle=0.05)
        waits.append(time.perf_counter() - began)
    return waits


def _cancelled(page: Page) -> float:
    """Seconds from a click on Cancel until the page says so."""
    page.get_by_role("button", name="Find α").click()
    cancel = page.get_by_role("button", name="Cancel")
    cancel.wait_for()
    began = time.perf_counter()
    cancel.click()
    page.get_by_text("cancelled, nothing was changed").wait_for()
    took = time.perf_counter() - began
    wait_idle(page)
    return took


def row(what: str, waits: list[float], target: str, case: str = "f", remark: str = "") -> Row:
    """Median and p95 of what was waited."""
    p95 = statistics.quantiles(waits, n=20)[-1]
    told = "; ".join(filter(None, [f"p95 {p95:.2f} s", remark]))
    return Row(case, what, None, statistics.median(waits), None, target, len(waits), told)
