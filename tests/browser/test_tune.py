"""The Tune page in a real browser: a sweep outlives its tab, its server and its worker, and its best point goes to Merge."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dcmerge import jobs
from dcmerge.methods import methods
from dcmerge.runtime.state_files import JOBS_VARIABLE
from tests.browser.steps import LONG, asked, figure, traces, visit
from tools.app_server import end, running_app
from tools.browser import errors_shown, new_page, wait_idle

POINTS = 40
#: One look a point: α is what is varied.
QUICK = {"method": "task_arithmetic", "task_arithmetic.tune.over": "scale", "tune.limit": "25", "tune.test": "False"}
CURVE = "Mean normalised accuracy against scale α"


def start(page: Page, url: str, values: int) -> None:
    visit(page, f"{url}/Tune", **QUICK, **{"tune.values": str(values)})
    expect(page.get_by_text(f"{values} points take about")).to_be_visible(timeout=LONG * 1000)
    page.get_by_role("button", name="Start sweep").click()
    expect(page.get_by_role("button", name="Cancel").first).to_be_visible(timeout=LONG * 1000)


def dots(page: Page) -> list[int]:
    """The numbers of the points in the curve."""
    return sorted(dot[0] for trace in traces(page, CURVE) for dot in trace["customdata"] or ())


@pytest.mark.timeout(1200)
def test_a_sweep_outlives_tab_server_and_worker(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path))
    with running_app() as app:
        page = new_page(browser)
        start(page, app.url, POINTS)
        expect(figure(page, CURVE)).to_be_visible(timeout=LONG * 1000)  # drawn as points come
        page.context.close()
        end(app.process)
    (job,) = jobs.all_jobs()
    os.kill(job.journal.events("worker")[-1]["pid"], signal.SIGKILL)

    with running_app() as app:
        page = new_page(browser)
        visit(page, f"{app.url}/Tune")
        resume = page.get_by_role("button", name="Resume").first
        expect(resume).to_be_visible(timeout=LONG * 1000)
        kept = dots(page)
        assert 0 < len(kept) < POINTS
        resume.click()
        expect(page.get_by_role("button", name="Cancel").first).to_be_visible(timeout=LONG * 1000)
        expect(page.get_by_text(f"All points ({POINTS}), the best first")).to_be_visible(timeout=2 * LONG * 1000)
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=LONG * 1000)
        wait_idle(page, LONG)
        assert dots(page) == list(range(POINTS))
        assert not errors_shown(page)
        page.get_by_role("button", name="Take the best to Merge").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Merge", timeout=LONG * 1000)
        wait_idle(page, LONG)
        best = job.chosen()
        # The address leaves the usual α out.
        usual = str(methods()["task_arithmetic"].usual_scale)
        assert best is not None and float(asked(page).get("task_arithmetic.alpha", usual)) == best["scale"]
        expect(page.get_by_role("slider", name="Scale α")).to_have_value(str(best["scale"]))
        page.context.close()
    assert job.state is jobs.State.DONE
    steps = [event["name"] for event in job.journal.events("step")]
    assert sorted(steps) == sorted([*(f"point-{number}" for number in range(POINTS)), "chosen"])
