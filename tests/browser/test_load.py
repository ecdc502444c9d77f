"""The Load page in a real browser: from a folder to spectra, and the set is there after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dcmerge.sets.model_sets import ROOTS_VARIABLE
from dcmerge.sets.saved_sets import FOLDER_VARIABLE
from tests.browser.steps import LONG
from tests.ui.conftest import write_set
from tools.app_server import running_app
from tools.browser import errors_shown, new_page, open_page, wait_idle

CHART = ".js-plotly-plot .main-svg"


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """What two dashboards share: the root, and the folder of remembered sets."""
    write_set(tmp_path / "root" / "zoo" / "animals")
    return {ROOTS_VARIABLE: str(tmp_path / "root"), FOLDER_VARIABLE: str(tmp_path / "sets")}


def shown(browser: Browser, address: str) -> Page:
    page = new_page(browser, viewport={"width": 1280, "height": 900})
    open_page(page, address, timeout=LONG)
    return page


def test_a_folder_becomes_a_set_that_outlives_the_server(browser: Browser, variables: dict[str, str]) -> None:
    with running_app(variables=variables) as app:
        page = shown(browser, f"{app.url}/Load")
        for folder in ("zoo", "animals"):  # step by step into the folder
            page.get_by_role("button", name=folder, exact=True).click()
            wait_idle(page)
        expect(page.get_by_text("3 experts")).to_be_visible()
        expect(page.get_by_text("Names, shapes and dtypes fit")).to_be_visible()
        page.get_by_role("textbox", name="Name of the set").fill("my animals")
        page.keyboard.press("Tab")
        wait_idle(page)
        page.get_by_role("button", name="Open and show spectra").click()
        page.wait_for_selector(CHART, timeout=LONG * 1000)
        assert "/Spectra" in page.url and "saved%3Amy" in page.url and not errors_shown(page)
        page.context.close()
    with running_app(variables=variables) as app:
        page = shown(browser, f"{app.url}/Load")
        page.get_by_role("button", name="Show spectra", exact=True).click()
        page.wait_for_selector(CHART, timeout=LONG * 1000)
        assert "/Spectra" in page.url and not errors_shown(page)
        page.context.close()
