"""The theme can be read: contrast by WCAG 2, in both appearances."""

import re
import tomllib
from itertools import combinations
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((REPOSITORY / ".streamlit/config.toml").read_text())
APPEARANCES = ("light", "dark")


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", 0 to 1 (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2)."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("appearance", APPEARANCES)
@pytest.mark.parametrize("key", ["textColor", "linkColor", "codeTextColor", "dataframeHeaderTextColor"])
def test_text_stands_out(appearance: str, key: str) -> None:
    theme = CONFIG["theme"][appearance]
    for surface in ("backgroundColor", "secondaryBackgroundColor"):
        assert contrast(theme[key], theme[surface]) >= 4.5
        assert contrast(theme["textColor"], theme["sidebar"][surface]) >= 7


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_main_buttons_can_be_read_and_seen(appearance: str) -> None:
    """On the dark ground no blue has 4.5:1 both to white and to the ground: the middle serves both."""
    theme = CONFIG["theme"][appearance]
    assert contrast(theme["primaryColor"], "#ffffff") >= 4.2
    assert contrast(theme["primaryColor"], theme["backgroundColor"]) >= 4.2


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_chart_colours_stand_out_and_differ(appearance: str) -> None:
    theme = CONFIG["theme"][appearance]
    colours = theme["chartCategoricalColors"]
    assert len(colours) >= 8  # one for each task of the demo
    assert all(contrast(colour, theme["backgroundColor"]) >= 3 for colour in colours)
    for one, other in combinations(colours, 2):
        parts = [(int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
        assert sum(abs(a - b) for a, b in parts) >= 60, (one, other)


@pytest.mark.parametrize("appearance", APPEARANCES)
@pytest.mark.parametrize("palette", ["chartSequentialColors", "chartDivergingColors"])
def test_palettes_have_the_ten_steps_that_streamlit_wants(appearance: str, palette: str) -> None:
    colours = CONFIG["theme"][appearance][palette]
    assert len(colours) == 10
    assert all(re.fullmatch(r"#[0-9a-f]{6}", colour) for colour in colours)


def test_server_keeps_to_itself() -> None:
    assert CONFIG["server"]["address"] == "127.0.0.1"
    assert CONFIG["server"]["enableXsrfProtection"] is True
    assert CONFIG["server"]["allowedHosts"] == ["127.0.0.1", "localhost"]
    assert CONFIG["browser"]["gatherUsageStats"] is False
