"""The Runs page in a real browser: rows are picked, compared, named, and taken along."""

from __future__ import annotations

import csv
from pathlib import Path

from playwright.sync_api import Page, expect

from dcmerge.runs import RunStore, SetId
from tests.browser.steps import LONG, asked, traces, visit
from tests.runs.builders import a_run
from tools.browser import errors_shown, wait_idle

OWN = SetId("two by hand", "e" * 32)


def tick(page: Page, place: int) -> None:
    """A row of the table, 0 being the newest."""
    grid = page.get_by_role("region", name="Runs, the newest first").locator("canvas").first
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    page.mouse.click(box["x"] + 14, box["y"] + 35 * (place + 1.5))
    wait_idle(page, LONG)


def tick_both_by_keyboard(page: Page) -> None:
    """Two rows without a mouse."""
    page.get_by_role("region", name="Runs, the newest first").locator("canvas[data-testid=data-grid-canvas]").focus()
    for key in ("ArrowDown", "Shift+Space", "ArrowUp", "Shift+Space"):
        page.keyboard.press(key)
        wait_idle(page, LONG)


def test_two_runs_are_found_compared_named_and_taken_along(page: Page, app_url: str, tmp_path: Path) -> None:
    store = RunStore()  # the tests and their server share one folder
    store.record(a_run("1100", "11", set=OWN, made="2026-01-01T10:00:00+00:00"))
    better = store.record(a_run("1111", "11", method="dare", set=OWN, made="2026-01-01T11:00:00+00:00"))
    visit(page, f"{app_url}/Runs", **{"runs.set": OWN.hash})
    tick(page, 0)
    page.get_by_role("textbox", name="Name").fill("the better one")
    page.get_by_role("button", name="Save").click()
    wait_idle(page, LONG)
    assert store.get(better).name == "the better one"

    visit(page, f"{app_url}/Runs", **{"runs.set": OWN.hash})
    tick_both_by_keyboard(page)
    expect(page.get_by_text("points, with its 95 % interval")).to_be_visible(timeout=LONG * 1000)
    expect(page.get_by_text("+25.0 [")).to_be_visible()
    assert [trace["y"] for trace in traces(page, "Two runs side by side")] == [[100, 100], [50, 100]]
    with page.expect_download(timeout=LONG * 1000) as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    download.value.save_as(tmp_path / "runs.csv")
    with open(tmp_path / "runs.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["the better one", ""]
    assert asked(page)["runs.set"] == OWN.hash and not errors_shown(page)
