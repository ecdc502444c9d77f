"""Every page in light and dark: nothing uncaught on the page or in the console, readable boxes for what cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect

from tests.browser.steps import LONG, visit
from tests.ui.conftest import write_set
from tools.app_server import REPOSITORY
from tools.browser import errors_shown
from tools.screenshots import page_paths

PATHS = page_paths(REPOSITORY / "app.py")
#: Below a page's own address Streamlit first asks for these in the wrong place, and then finds them at the root.
LOOKED_FOR = ("/_stcore/health", "/_stcore/host-config")


def listen(page: Page) -> list[str]:
    """What goes wrong on the page from now on, as it happens."""
    wrong: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        url = message.location.get("url", "")
        if message.type == "error" and not url.endswith(LOOKED_FOR):
            wrong.append(f"{message.text} {url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    return wrong


@pytest.mark.parametrize("view", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=["light", "dark"])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_nothing_goes_wrong(page: Page, app_url: str, path: str) -> None:
    wrong = listen(page)
    visit(page, f"{app_url}/{path}", **({"quick": "25", "method": "average"} if path == "Merge" else {}))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert not wrong and not errors_shown(page)
    assert "Traceback" not in page.locator("body").inner_text()
    # Nothing sticks out sideways.
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth <= innerWidth")


@pytest.mark.parametrize("path", [path for path in PATHS.values() if path not in ("Load", "Runs")])  # which open no set
def test_a_broken_set_is_a_box(page: Page, app_url: str, root: Path, path: str) -> None:
    damaged = write_set(root / "damaged") / "birds.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    wrong = listen(page)
    visit(page, f"{app_url}/{path}", set="folder:damaged")
    box = page.get_by_test_id("stAlert")
    expect(box).to_have_count(1, timeout=LONG * 1000)
    expect(box).to_contain_text("birds.safetensors")
    written = page.locator("body").inner_text()
    assert "Traceback" not in written and "InputError" not in written
    assert not wrong and not errors_shown(page)
