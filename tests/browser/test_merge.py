"""The Merge page in a real browser: what is on the screen and in the file is what the library computes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect
from safetensors import safe_open
from safetensors.torch import load_file

from dcmerge import merge
from dcmerge.merging.recipe import METADATA_KEY
from dcmerge.methods import methods
from dcmerge.sets.model_sets import ModelSet, open_set_by_name, roots
from dcmerge.ui.text import percent
from tests.browser.steps import LONG, asked, metric, pick, press, traces, visit
from tools.browser import errors_shown, wait_idle

QUICK = 25
METHOD = "task_arithmetic"
BARS, RUNS = "Accuracy per task", "Runs, the newest first"
#: Seconds for 16 passes over 1,000 test images each, which a busy machine stretches.
TEST_SPLIT = 800.0


@pytest.fixture(scope="module")
def demo() -> ModelSet:
    return open_set_by_name("demo", roots())


def row_of(page: Page, place: int) -> None:
    """Tick a row of the runs, 0 being the newest."""
    grid = page.get_by_role("region", name=RUNS).locator("canvas").first
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    height = 35
    page.mouse.click(box["x"] + 14, box["y"] + height * (place + 1.5))
    wait_idle(page, LONG)


def runs_shown(page: Page) -> int:
    table = page.get_by_role("region", name=RUNS).locator("table[role=grid]").first
    return int(table.get_attribute("aria-rowcount")) - 1


def test_a_merge_is_tuned_compared_and_taken_home(page: Page, app_url: str, demo: ModelSet, tmp_path: Path) -> None:
    visit(page, f"{app_url}/Merge", quick=str(QUICK))
    pick(page, "Method", methods()[METHOD].title)
    press(page, "Scale α", "ArrowRight", times=4)
    alpha = float(asked(page)[f"{METHOD}.alpha"])
    assert alpha == pytest.approx(methods()[METHOD].usual_scale + 4 * 0.05)

    merged = merge(demo.vectors, METHOD)
    wanted = demo.bench.evaluate(demo.bench.merged_weights(merged.deltas, alpha), METHOD, split="val", limit=QUICK)
    assert metric(page, "Mean accuracy") == percent(wanted.mean)
    assert metric(page, "Normalised") == percent(wanted.mean_normalised)
    bars = traces(page, BARS)
    assert bars[1]["y"] == pytest.approx([100 * task.accuracy for task in wanted.tasks.values()])
    assert percent(wanted.mean) in bars[1]["name"]

    assert runs_shown(page) >= 3  # the default method, this one at its own α, and at the new one
    row_of(page, 0)
    row_of(page, 1)
    expect(page.get_by_text("points, with its 95 % interval")).to_be_visible()
    compared = traces(page, "Two runs side by side")
    assert compared[0]["y"] == bars[1]["y"] and len(compared) == 2

    with page.expect_download(timeout=LONG * 1000) as download:
        page.get_by_role("button", name="Save merged model").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    check_file(file, demo, merged.deltas, alpha)
    assert not errors_shown(page)


def check_file(file: Path, demo: ModelSet, deltas: dict[str, torch.Tensor], alpha: float) -> None:
    """The downloaded model is base + α · merged in the base's dtype, and says how it was made."""
    assert file.name == f"{METHOD}-alpha-{alpha:g}.safetensors"
    with safe_open(file, "pt") as opened:
        recipe = json.loads(opened.metadata()[METADATA_KEY])
    assert recipe["method"] == METHOD and recipe["scale"] == pytest.approx(alpha)
    assert recipe["scale_origin"] == "set by hand"
    assert set(recipe["inputs"]) == {"base", *demo.vectors.tasks}
    assert all(len(source["sha256"]) == 64 for source in recipe["inputs"].values())
    base, saved = load_file(demo.vectors.base.path), load_file(file)
    assert set(saved) == set(base)
    for name, value in base.items():
        wanted = value.float() + alpha * deltas[name] if name in deltas else value.float()
        assert saved[name].dtype == value.dtype
        torch.testing.assert_close(saved[name].float(), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.timeout(1200)
def test_the_search_for_alpha_is_cancelled_and_the_test_split_is_evaluated(page: Page, app_url: str) -> None:
    visit(page, f"{app_url}/Merge", quick=str(QUICK), method="average")
    page.get_by_role("button", name="Find α").click()
    cancel = page.get_by_test_id("stMain").get_by_role("button", name="Cancel")
    expect(cancel).to_be_visible(timeout=LONG * 1000)
    cancel.click()
    expect(page.get_by_text("is cancelled")).to_be_visible(timeout=LONG * 1000)
    expect(cancel).to_be_hidden()
    wait_idle(page, LONG)
    assert "average.alpha" not in asked(page)

    before = runs_shown(page)
    page.get_by_role("button", name="Evaluate on test").click()
    expect(cancel).to_be_visible(timeout=LONG * 1000)
    page.reload()  # the work goes on, and the page finds it again
    expect(cancel).to_be_visible(timeout=LONG * 1000)
    done = page.get_by_text(re.compile(r"absolute, .* normalised \(test split"))
    expect(done).to_be_visible(timeout=TEST_SPLIT * 1000)
    wait_idle(page, LONG)
    assert runs_shown(page) == before + 1
    expect(page.get_by_role("button", name="Evaluate on test")).to_be_enabled()
    row_of(page, 0)
    row_of(page, 1)
    expect(page.get_by_text("measured on different images")).to_be_visible()
    assert not errors_shown(page)
