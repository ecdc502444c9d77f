"""What a person does and sees on the dashboard, in the words of the tests."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlparse

from playwright.sync_api import Locator, Page, expect

from tools.browser import open_page, wait_idle

#: Seconds for what computes: the first page of a server opens checkpoints and takes all singular values.
LONG = 280.0

_TRACES = """plot => plot.data.map(trace => ({
  name: trace.name, x: trace.x && Array.from(trace.x), y: trace.y && Array.from(trace.y),
  customdata: trace.customdata && Array.from(trace.customdata),
}))"""


def visit(page: Page, url: str, **query: str) -> None:
    """Go to an address as from a link, and wait until the page is drawn."""
    asked = "&".join(f"{key}={value}" for key, value in query.items())
    open_page(page, f"{url}?{asked}" if asked else url, timeout=LONG)


def go(page: Page, name: str) -> None:
    """Follow the sidebar's link to a page."""
    page.get_by_label("Sidebar").get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name, timeout=LONG * 1000)
    wait_idle(page, LONG)


def pick(page: Page, label: str, option: str) -> None:
    """Choose an option of a select box."""
    page.get_by_role("combobox", name=label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()
    wait_idle(page, LONG)


def slider(page: Page, label: str) -> Locator:
    return page.get_by_role("slider", name=label)


def press(page: Page, label: str, key: str, times: int = 1) -> None:
    """Move a slider with the keyboard."""
    thumb = slider(page, label)
    thumb.focus()
    for _ in range(times):
        thumb.press(key)
    page.wait_for_timeout(300)  # a slider waits a moment before it tells the server
    wait_idle(page, LONG)


def asked(page: Page) -> dict[str, str]:
    """The address bar's query."""
    return {key: values[0] for key, values in parse_qs(urlparse(page.url).query).items()}


def figure(page: Page, title: str) -> Locator:
    """The plot with these words in its title."""
    return page.get_by_role("figure", name=title).locator(".js-plotly-plot")


def traces(page: Page, title: str) -> list[dict[str, Any]]:
    """What plotly draws: name, x and y of every trace."""
    return figure(page, title).evaluate(_TRACES)


def metric(page: Page, label: str) -> str:
    """The value under a label of figures."""
    box = page.get_by_test_id("stMetric").filter(has=page.get_by_text(label, exact=True))
    return box.get_by_test_id("stMetricValue").inner_text()
