"""Drive the dashboard in a real Chromium: start it, wait for Streamlit to come to rest, switch pages."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, FloatRect, Locator, Page, sync_playwright

from tools.chromium import FLAGS, find_chromium

IDLE = "[data-testid=stApp][data-test-script-state=notRunning][data-test-connection-state=CONNECTED]"
# Elements of the previous run that wait to be replaced, and grey boxes in the place of what is still to come.
UNFINISHED = "[data-stale=true], [data-testid=stSkeleton], [data-testid=stSpinner]"

# A click reaches the server a moment later, on a busy machine much later: until the answer comes, the page looks idle.
# So every page notes when it last sent something and when it last heard from the server.
LISTEN = """(() => {
  const send = WebSocket.prototype.send;
  window.__sent = window.__heard = 0;
  WebSocket.prototype.send = function (data) {
    if (!this.__listened) {
      this.__listened = true;
      this.addEventListener("message", () => { window.__heard = performance.now(); });
    }
    window.__sent = performance.now();
    return send.call(this, data);
  };
})()"""

# True once the page has been at rest for `settle` ms: answered, no script running, nothing unfinished. A message
# without an answer after `patience` ms was one that wants none.
AT_REST = """([idle, unfinished, settle, patience]) => {
  const now = performance.now();
  const answered = window.__heard >= window.__sent || now - window.__sent > patience;
  const resting = answered && document.querySelector(idle) !== null && document.querySelector(unfinished) === null;
  if (!resting) { window.__restingSince = undefined; return false; }
  window.__restingSince ??= now;
  return now - window.__restingSince >= settle;
}"""
PATIENCE = 5000  # ms
BELOW = 30  # px of a picture below the element that it ends with: a card's padding and border


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


def new_page(browser: Browser, **options: Any) -> Page:
    """A page in a context of its own, ready for wait_idle; the options are those of playwright's new_context."""
    context = browser.new_context(**options)
    context.set_default_timeout(30_000)
    context.add_init_script(LISTEN)
    return context.new_page()


def wait_idle(page: Page, timeout: float = 60.0, settle: float = 0.4) -> None:
    """Wait until the server has answered, no script runs, nothing is stale and that has lasted `settle` seconds.

    page: from new_page. timeout, settle: seconds; sliders wait 0.2 s themselves before they tell the server.
    Raises playwright's TimeoutError.
    """
    page.evaluate("window.__restingSince = undefined")
    page.wait_for_function(AT_REST, arg=[IDLE, UNFINISHED, settle * 1000, PATIENCE], timeout=timeout * 1000, polling=50)


def open_page(page: Page, url: str, timeout: float = 60.0) -> None:
    """Go to an address of the dashboard and wait until the page is drawn."""
    page.goto(url, wait_until="domcontentloaded", timeout=timeout * 1000)
    page.wait_for_selector("[data-testid=stApp]", timeout=timeout * 1000)
    wait_idle(page, timeout)


def errors_shown(page: Page) -> list[str]:
    """The text of every uncaught exception that the page shows (there should be none, whatever a person does)."""
    return page.locator("[data-testid=stException]").all_inner_texts()


def save_whole_page(page: Page, path: Path, tallest: int = 6000, until: Locator | None = None) -> None:
    """Save a picture of the page as PNG, from the top to the bottom, or to the end of the element `until`.

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
    page.screenshot(path=path, animations="disabled", clip=_down_to(page, until) if until else None)
    if before:
        page.set_viewport_size(before)


def _down_to(page: Page, last: Locator) -> FloatRect:
    """The page's upper part, down to a little below an element."""
    box = last.bounding_box()
    assert box is not None, "the element that a picture ends with is not shown"
    return {"x": 0, "y": 0, "width": page.evaluate("innerWidth"), "height": box["y"] + box["height"] + BELOW}
