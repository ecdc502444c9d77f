"""The Diagnose page in a real browser: a map is made, survives a reload, and its squares tell their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dcmerge.evaluation import Scale
from dcmerge.jobs.telling import kept_of
from dcmerge.merging.merge import merge
from dcmerge.runs import LOOK
from dcmerge.runs.recording import keep, measured_run
from dcmerge.runtime.state_files import JOBS_VARIABLE
from dcmerge.studies.tells import MERGES
from dcmerge.zoo import open_zoo
from tests.browser.steps import LONG, asked, figure, pick, traces, visit
from tools.app_server import running_app
from tools.browser import errors_shown, new_page, wait_idle

#: Two parts of the demo, one change: the smallest map that the page makes.
QUICK = {"method": "average", "damage.by": "blocks", "damage.limit": "25", "damage.changes": "base"}
MAP, SUMS = "Change of accuracy when one part is changed", "Single changes added up"


@pytest.mark.timeout(900)
def test_a_map_is_made_and_stays(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path))
    with running_app() as app:
        page = new_page(browser)
        visit(page, f"{app.url}/Diagnose", **QUICK)
        expect(page.get_by_text("6 parts take about")).to_be_visible(timeout=LONG * 1000)
        page.get_by_role("button", name="Make the map").click()
        # Drawn as parts come: between two drawings the old chart may stand beside the new one.
        expect(figure(page, MAP).first).to_be_visible(timeout=LONG * 1000)
        page.reload()
        expect(figure(page, MAP).first).to_be_visible(timeout=LONG * 1000)
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=LONG * 1000)
        wait_idle(page, LONG)
        expect(figure(page, MAP)).to_have_count(1)
        (squares,) = traces(page, MAP)
        assert len(squares["customdata"]) == 6 * (8 + 1)  # parts by tasks, and their mean
        assert {row[4] for row in squares["customdata"]} == {25, 200}
        singles, joint = traces(page, SUMS)
        assert len(singles["y"]) == len(joint["y"]) == 8
        assert not errors_shown(page)
        page.context.close()


@pytest.mark.timeout(600)
def test_pairs_are_judged_and_a_click_tells_one_part_by_part(page: Page, app_url: str) -> None:
    visit(page, f"{app_url}/Diagnose")
    page.get_by_role("radio", name="Will it merge?").click()
    wait_idle(page, LONG)
    by_word = {trace["name"]: trace for trace in traces(page, "Every pair of experts in one word")}
    assert {word: len(trace["x"]) for word, trace in by_word.items()} == {"reinforcing": 3, "independent": 25}
    page.get_by_role("radio", name="cosine", exact=True).click()
    wait_idle(page, LONG)
    assert asked(page)["verdict.shown"] == "cosine"
    (squares,) = traces(page, "Every pair of experts: cosine")
    assert len(squares["x"]) == 28
    figure(page, "Every pair of experts: cosine").locator(".points path").nth(13).click(force=True)
    wait_idle(page, LONG)
    first, second = (squares[axis][13] for axis in ("x", "y"))
    expect(page.get_by_role("combobox", name="Pair", exact=True)).to_have_value(f"{first} and {second}", timeout=LONG * 1000)
    assert not errors_shown(page)


@pytest.mark.timeout(900)
def test_lost_images_are_seen_and_two_runs_compared(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path))
    bench = open_zoo("demo").bench
    for scale in (0.5, 1.5):
        weights = bench.merged_weights(merge(bench.vectors, "average").deltas, scale)
        found = bench.evaluate(weights, "average", split="val", limit=25)
        keep([measured_run(bench, "demo", LOOK, "average", found, scale=Scale(scale, "given"))])
    with running_app() as app:
        page = new_page(browser)
        visit(
            page, f"{app.url}/Diagnose", **{"diagnose": "Lost images", "method": "average", "lost.limit": "25", "task": "flags"}
        )
        page.get_by_role("button", name="Show the images").click()
        expect(page.get_by_text("What the merge loses and wins")).to_be_visible(timeout=LONG * 1000)
        wait_idle(page, LONG)
        lost = page.get_by_role("radio", name="lost: ")
        count = int(lost.inner_text().rpartition(" ")[2])
        pictures = page.get_by_test_id("stImage").get_by_role("img")
        assert count > 0
        expect(pictures).to_have_count(min(count, 24))
        assert "the expert says" in (pictures.first.get_attribute("alt") or "")
        assert figure(page, "What the merge changes about the mistakes on Flags").count() == 1
        page.get_by_role("radio", name="two runs").click()
        wait_idle(page, LONG)
        expect(page.get_by_text("points of mean accuracy")).to_be_visible()
        expect(page.get_by_role("radio", name="only the first is right: ")).to_be_visible()
        assert asked(page)["lost.what"] == "two runs" and not errors_shown(page)
        page.context.close()


@pytest.mark.timeout(900)
def test_every_matrix_is_filtered_and_another_method_subtracted(page: Page, app_url: str) -> None:
    visit(page, f"{app_url}/Diagnose", diagnose="Every matrix", method="average", **{"layers.text": "mlp"})
    (cells,) = traces(page, "By task and matrix: DirSim")
    assert len(cells["x"]) == 18 and len(cells["y"]) == 8
    expect(page.get_by_test_id("stDataFrame")).to_have_count(2)  # every matrix, and two of them beside each other
    pick(page, "Minus", "TIES-Merging")
    assert figure(page, "By task and matrix: difference of DirSim").count() == 1
    page.get_by_role("radio", name="effective rank").click()
    wait_idle(page, LONG)
    assert figure(page, "By task and matrix: effective rank").count() == 1
    assert asked(page)["layers.minus"] == "ties" and not errors_shown(page)


@pytest.mark.timeout(900)
def test_a_study_is_made_and_says_what_tells(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path))
    small = {"tells.merges": "4", "tells.limit": "25", "tells.methods": "average,ties,task_arithmetic"}
    with running_app() as app:
        page = new_page(browser)
        visit(page, f"{app.url}/Diagnose", diagnose="Does it tell?", **small)
        expect(page.get_by_text("4 merges take about")).to_be_visible(timeout=LONG * 1000)
        page.get_by_role("button", name="Start the study").click()
        expect(page.get_by_role("button", name="Cancel").first).to_be_visible(timeout=LONG * 1000)
        page.reload()
        expect(page.get_by_text("4 merges, 25 validation images a task with labels")).to_be_visible(timeout=LONG * 1000)
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=LONG * 1000)
        wait_idle(page, LONG)
        expect(page.get_by_text("All of these merges are made already")).to_be_visible()
        (kept,) = kept_of(open_zoo("demo").vectors)
        made = kept.study()
        _, dots = traces(page, "Rank correlation of each measure")
        assert dots["x"] == pytest.approx([one.value for name in made.measures if (one := made.correlation(name))])
        pick(page, "What is chosen", "Which merge, each at its usual α")
        wait_idle(page, LONG)
        _, dots = traces(page, "Rank correlation of each measure")
        assert dots["x"] == pytest.approx([one.value for n in made.measures if (one := made.correlation(n, None, MERGES))])
        assert asked(page)["tells.scope"] == MERGES
        assert not errors_shown(page)
        page.context.close()
