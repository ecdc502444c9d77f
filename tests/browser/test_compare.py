"""The Compare page in a real browser: a comparison goes on without its tab, and its table can be taken along."""

from __future__ import annotations

import csv
import io
import os
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dcmerge import jobs
from dcmerge.runtime.state_files import JOBS_VARIABLE
from tests.browser.steps import LONG, figure, traces, visit
from tools.app_server import end, running_app
from tools.browser import errors_shown, new_page, wait_idle

LIMITS = {"compared": "ties", "limit": "20", "val_limit": "20"}
ROWS = ["Zero-shot (the base)", "Weight averaging", "TIES-Merging", "Experts, each on its own task"]


def start(page: Page, app_url: str) -> None:
    visit(page, f"{app_url}/Compare", **LIMITS)
    page.get_by_role("button", name="Start comparison").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_visible(timeout=LONG * 1000)


def finished(page: Page) -> None:
    expect(figure(page, "DirSim: how far")).to_be_visible(timeout=LONG * 1000)
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


def test_rows_outlive_server_and_worker(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tab closed, server and worker killed in the middle: resumed on a new server, each method runs once."""
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path))
    with running_app() as app:
        page = new_page(browser)
        start(page, app.url)
        expect(figure(page, "What accuracy costs")).to_be_visible(timeout=LONG * 1000)  # averaging is finished
        page.context.close()
        end(app.process)
    (job,) = jobs.all_jobs()
    os.kill(job.journal.events("worker")[-1]["pid"], signal.SIGKILL)

    with running_app() as app:
        page = new_page(browser)
        visit(page, f"{app.url}/Compare")
        resume = page.get_by_role("button", name="Resume")
        expect(resume).to_be_visible(timeout=LONG * 1000)
        assert "average" in job.rows() and "ties" not in job.rows()
        resume.click()
        expect(page.get_by_role("button", name="Cancel")).to_be_visible(timeout=LONG * 1000)
        expect(page.get_by_role("button", name="Cancel")).to_be_hidden(timeout=LONG * 1000)
        wait_idle(page, LONG)
        assert traces(page, "Normalised accuracy of every method")[0]["x"] == ROWS
        assert not errors_shown(page)
        page.context.close()
    assert job.state is jobs.State.DONE
    assert sorted(event["name"] for event in job.journal.events("step")) == ["average", "experts", "ties", "zero-shot"]
