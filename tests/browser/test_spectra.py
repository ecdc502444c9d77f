"""The Spectra page in a real browser: controls redraw, the address keeps the view, the overview is clicked."""

from __future__ import annotations

import math

import pytest
from playwright.sync_api import Page, expect

from tests.browser.steps import LONG, asked, figure, go, pick, press, slider, traces, visit
from tools.browser import errors_shown, wait_idle

FACETS, OVERVIEW = "Singular values of", "Every matrix by depth and kind"


def smoothed(page: Page) -> list[float]:
    """The first task's smoothed spectrum as drawn."""
    return next(trace["y"] for trace in traces(page, FACETS) if trace["name"].startswith("smoothed ("))


def test_smoothing_and_rho_redraw_and_stay_chosen(page: Page, app_url: str) -> None:
    visit(page, f"{app_url}/Spectra")
    at_five = smoothed(page)  # the demo arrives with linear smoothing
    pick(page, "Smoothing", "none")
    unsmoothed = smoothed(page)
    pick(page, "Smoothing", "linear")
    assert smoothed(page) == at_five
    press(page, "ρ", "ArrowLeft", times=6)
    at_two = smoothed(page)
    assert asked(page) == {"rho": "2"}
    assert len({tuple(values) for values in (unsmoothed, at_five, at_two)}) == 3
    for values in (at_five, at_two):
        assert sum(values) == pytest.approx(sum(unsmoothed), rel=2e-3)
    assert at_two[0] / at_two[-1] == pytest.approx(2.0, rel=5e-3)

    page.reload()
    page.wait_for_selector("[data-testid=stApp]")
    wait_idle(page, LONG)
    assert asked(page) == {"rho": "2"} and smoothed(page) == at_two

    go(page, "Alignment")
    expect(slider(page, "ρ")).to_have_attribute("aria-valuetext", "2.0")
    assert asked(page) == {"rho": "2"}
    go(page, "Spectra")
    assert smoothed(page) == at_two
    assert not errors_shown(page)


def test_back_leaves_the_page_and_forward_finds_what_was_chosen(page: Page, app_url: str) -> None:
    visit(page, f"{app_url}/Methods")
    go(page, "Spectra")
    entries = page.evaluate("history.length")
    press(page, "ρ", "ArrowLeft", times=2)
    press(page, "ρ", "ArrowLeft", times=2)
    at_four = asked(page)
    assert page.evaluate("history.length") == entries and "rho" in at_four
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Methods", timeout=LONG * 1000)
    page.go_forward()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Spectra", timeout=LONG * 1000)
    wait_idle(page, LONG)
    assert asked(page) == at_four
    assert not errors_shown(page)


@pytest.mark.parametrize("components", ["kept", "all"])
def test_the_lines_fill_their_plots(page: Page, app_url: str, components: str) -> None:
    visit(page, f"{app_url}/Spectra", smoothing="linear", components=components)
    low, high = figure(page, FACETS).evaluate("plot => plot._fullLayout.yaxis.range")  # decades
    values = [math.log10(y) for trace in traces(page, FACETS) for y in trace["y"] if y]
    assert low < min(values) and max(values) < high
    assert high - low < 1.3 * (max(values) - min(values))


def test_a_link_opens_the_view_it_names(page: Page, app_url: str) -> None:
    layer = "visual.transformer.resblocks.1.mlp.c_proj.weight"
    visit(page, f"{app_url}/Spectra", layer=layer, smoothing="average", set="demo")
    expect(figure(page, f"{FACETS} {layer}")).to_be_visible()
    values = smoothed(page)
    assert values == pytest.approx([values[0]] * len(values), rel=1e-3)


def test_a_click_on_the_overview_changes_the_matrix(page: Page, app_url: str) -> None:
    visit(page, f"{app_url}/Spectra")
    before = page.get_by_role("combobox", name="Matrix", exact=True).input_value()
    (dots,) = traces(page, OVERVIEW)
    place = dots["customdata"].index("visual.transformer.resblocks.3.mlp.c_fc.weight")
    square = figure(page, OVERVIEW).locator(".scatterlayer .point").nth(place)
    square.scroll_into_view_if_needed()
    box = square.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_role("heading", name="MLP in, block 3")).to_be_visible(timeout=LONG * 1000)
    wait_idle(page, LONG)
    assert page.get_by_role("combobox", name="Matrix", exact=True).input_value() == "MLP in, block 3" != before
    assert asked(page) == {"layer": dots["customdata"][place]}
    expect(figure(page, f"{FACETS} {dots['customdata'][place]}")).to_be_visible()
    assert not errors_shown(page)
