"""A report opens from disk in a browser without the net, and its figures react."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser, expect

from dcmerge.reports import as_html
from dcmerge.reports.of_comparison import report_of_comparison
from tests.plots.builders import comparison

EVIL = "</script><img src=x onerror=alert(1)>"


def test_it_opens_offline_and_its_figures_react(browser: Browser, tmp_path: Path) -> None:
    found = comparison()
    rows = tuple(replace(row, title=EVIL) if row.name == "average" else row for row in found.rows)
    file = tmp_path / "report.html"
    file.write_text(as_html(report_of_comparison(replace(found, rows=rows), "Methods")), encoding="utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(file.as_uri())
    expect(page.locator(".js-plotly-plot")).to_have_count(4)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    lines = page.locator(".js-plotly-plot").nth(3)
    assert lines.evaluate("plot => plot.data[0].visible") in (None, True)
    lines.locator(".legendtoggle").first.click()
    page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot')[3].data[0].visible === 'legendonly'")
    assert problems == []
    context.close()
