"""The Diagnose page in a real browser: a map is made, survives a reload, and its squares tell their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from dcmerge.runtime.state_files import JOBS_VARIABLE
from tests.browser.steps import LONG, figure, traces, visit
from tools.app_server import running_app
from tools.browser import errors_shown, new_page, wait_idle

#: Two parts of the demo, one change: the smallest map that the page makes.
QUICK = {"method": "average", "damage.by": "blocks", "damage.limit": "25", "damage.changes": "base"}
MAP, SUMS = "Change of accuracy when one part is changed", "Single changes added up"


@pytest.mark.timeout(900)
def test_a_map_is_made_and_stays(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path))
    with running_app() as app:
        page = new_page(browser)
        visit(page, f"{app.url}/Diagnose", **QUICK)
        expect(page.get_by_text("6 parts take about")).to_be_visible(timeout=LONG * 1000)
        page.get_by_role("button", name="Make the map").click()
        # Drawn as parts come: between two drawings the old chart may stand beside the new one.
        expect(figure(page, MAP).first).to_be_visible(timeout=LONG * 1000)
        page.reload()
        expect(figure(page, MAP).first).to_be_visible(timeout=LONG * 1000)
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=LONG * 1000)
        wait_idle(page, LONG)
        expect(figure(page, MAP)).to_have_count(1)
        (squares,) = traces(page, MAP)
        assert len(squares["customdata"]) == 6 * (8 + 1)  # parts by tasks, and their mean
        assert {row[4] for row in squares["customdata"]} == {25, 200}
        singles, joint = traces(page, SUMS)
        assert len(singles["y"]) == len(joint["y"]) == 8
        assert not errors_shown(page)
        page.context.close()
