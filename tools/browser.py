"""Drive the dashboard in a real Chromium: start it, wait for Streamlit to come to rest, switch pages."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tools.chromium import FLAGS, find_chromium

IDLE = "[data-testid=stApp][data-test-script-state=notRunning][data-test-connection-state=CONNECTED]"
# Elements of the previous run that wait to be replaced, and grey boxes in the place of what is still to come.
UNFINISHED = "[data-stale=true], [data-testid=stSkeleton], [data-testid=stSpinner]"

# True once the page has been at rest for `settle` ms: a click reaches the server a moment later, so the first
# sight of an idle page may be the moment before the run.
AT_REST = """([idle, unfinished, settle]) => {
  const resting = document.querySelector(idle) !== null && document.querySelector(unfinished) === null;
  const now = performance.now();
  if (!resting) { window.__restingSince = undefined; return false; }
  window.__restingSince ??= now;
  return now - window.__restingSince >= settle;
}"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium; tools.chromium.NoChromium where none is installed."""
    executable = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def wait_idle(page: Page, timeout: float = 60.0, settle: float = 0.3) -> None:
    """Wait until no script runs, nothing on the page is stale and that has lasted `settle` seconds.

    timeout, settle: seconds. Raises playwright's TimeoutError.
    """
    page.evaluate("window.__restingSince = undefined")
    page.wait_for_function(AT_REST, arg=[IDLE, UNFINISHED, settle * 1000], timeout=timeout * 1000, polling=50)


def open_page(page: Page, url: str, timeout: float = 60.0) -> None:
    """Go to an address of the dashboard and wait until the page is drawn."""
    page.goto(url, wait_until="domcontentloaded", timeout=timeout * 1000)
    page.wait_for_selector("[data-testid=stApp]", timeout=timeout * 1000)
    wait_idle(page, timeout)


def errors_shown(page: Page) -> list[str]:
    """The text of every uncaught exception that the page shows (there should be none, whatever a person does)."""
    return page.locator("[data-testid=stException]").all_inner_texts()


def save_whole_page(page: Page, path: Path, tallest: int = 6000) -> None:
    """Save a picture of the page from top to bottom as PNG.

    Streamlit scrolls inside the page, so the window is made as tall as the content (at most `tallest` pixels).
    """
    before = page.viewport_size
    height = page.evaluate(
        "Math.max(...[...document.querySelectorAll('[data-testid=stMain], [data-testid=stSidebarContent]')]"
        ".map(part => part.scrollHeight), innerHeight)"
    )
    if before:
        page.set_viewport_size({"width": before["width"], "height": min(int(height), tallest)})
        wait_idle(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, animations="disabled")
    if before:
        page.set_viewport_size(before)
