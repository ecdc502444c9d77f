"""A running dashboard and a real Chromium for the tests of this folder.

app_url   address of a dashboard that lives as long as the test session
root      the only folder that this dashboard may read sets from
page      a fresh Chromium page of 1280 x 900 pixels, light. Any option of playwright's new_context changes that:
          @pytest.mark.parametrize("view", [{"color_scheme": "dark"}])
Helpers: from tools.browser import wait_idle, open_page, errors_shown, save_whole_page

When a test fails, test-results/ holds a picture of the page and the report the end of the dashboard's log.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from dcmerge.sets.model_sets import ROOTS_VARIABLE
from tools.app_server import REPOSITORY, RunningApp, running_app
from tools.browser import chromium, new_page, save_whole_page
from tools.chromium import NoChromium

RESULTS = REPOSITORY / "test-results"
REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="session")
def app(root: Path) -> Iterator[RunningApp]:
    with running_app(variables={ROOTS_VARIABLE: str(root)}) as running:
        yield running


@pytest.fixture(scope="session")
def app_url(app: RunningApp) -> str:
    return app.url


# One browser a module, not a session: while it is open, playwright keeps an event loop in this thread, in which
# other tests' asyncio.run would fail.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with chromium() as started:
            yield started
    except NoChromium as error:
        pytest.fail(f"No Chromium starts here: {error}. Run: python -m tools.chromium", pytrace=False)


@pytest.fixture
def view() -> dict:
    return {}


@pytest.fixture
def page(browser: Browser, app_url: str, view: dict, request: pytest.FixtureRequest) -> Iterator[Page]:
    opened = new_page(browser, **{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **view})
    try:
        yield opened
        report = request.node.stash.get(REPORT, None)
        if report is not None and report.failed:
            keep_picture(opened, RESULTS / (re.sub(r"[^\w.-]+", "_", request.node.name) + ".png"))
    finally:
        opened.context.close()


def keep_picture(page: Page, path: Path) -> None:
    """Save what the page shows; a page too broken to be drawn must not hide the test's own failure."""
    try:
        save_whole_page(page, path)
    except Exception as error:
        print(f"No picture of the page: {error}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.stash[REPORT] = report
        running = getattr(item, "funcargs", {}).get("app")
        if report.failed and running is not None:
            report.sections.append(("the dashboard's log", running.log_tail()))
    return report
