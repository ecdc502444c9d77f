"""The Compare page in a real browser: a comparison goes on without its tab, and its table can be taken along."""

from __future__ import annotations

import csv
import io

from playwright.sync_api import Browser, Page, expect

from tests.browser.steps import LONG, figure, traces, visit
from tools.browser import errors_shown, new_page, wait_idle

LIMITS = {"compared": "ties", "limit": "20", "val_limit": "20"}
ROWS = ["Zero-shot (the base)", "Weight averaging", "TIES-Merging", "Experts, each on its own task"]


def start(page: Page, app_url: str) -> None:
    visit(page, f"{app_url}/Compare", **LIMITS)
    page.get_by_role("button", name="Start comparison").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible(timeout=LONG * 1000)


def finished(page: Page) -> None:
    expect(figure(page, "DirSim")).to_be_visible(timeout=LONG * 1000)
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden(timeout=LONG * 1000)
    wait_idle(page, LONG)


def saved(page: Page, button: str) -> str:
    with page.expect_download(timeout=LONG * 1000) as download:
        page.get_by_role("button", name=button, exact=True).click()
    return download.value.path().read_text(encoding="utf-8")


def test_a_comparison_goes_on_without_its_tab(browser: Browser, page: Page, app_url: str) -> None:
    first = new_page(browser)
    start(first, app_url)
    first.context.close()

    visit(page, f"{app_url}/Compare")
    finished(page)
    cells = traces(page, "Normalised accuracy of every method")[0]
    assert cells["x"] == ROWS and len(cells["y"]) == 8
    table = list(csv.DictReader(io.StringIO(saved(page, "CSV"))))
    assert [row["method"] for row in table] == ROWS and table[2]["images a task"] == "20"
    points = [trace for trace in traces(page, "What accuracy costs") if trace["name"] in ROWS]
    assert {p["name"]: round(p["y"][0], 2) for p in points} == {r["method"]: float(r["accuracy"]) for r in table[1:3]}
    assert "| TIES-Merging |" in saved(page, "Markdown")
    assert not errors_shown(page)


def test_it_is_cancelled_and_resumed(page: Page, app_url: str) -> None:
    start(page, app_url)
    page.get_by_role("button", name="Cancel").click()
    resume = page.get_by_role("button", name="Resume")
    expect(resume).to_be_visible(timeout=LONG * 1000)
    wait_idle(page, LONG)
    resume.click()
    finished(page)
    assert traces(page, "Normalised accuracy of every method")[0]["x"] == ROWS
    assert not errors_shown(page)
