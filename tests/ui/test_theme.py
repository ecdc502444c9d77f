"""The theme can be read: contrast by WCAG 2, in both appearances."""

import re
import tomllib
from itertools import combinations
from pathlib import Path

import plotly.graph_objects as go
import pytest
import streamlit

from dcmerge import plots
from dcmerge.methods import methods
from dcmerge.plots import style
from tests.plots import builders

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


def over(colour: str, ground: str, opacity: float) -> str:
    """What is seen of a translucent colour on a ground."""
    pairs = [(int(colour[i : i + 2], 16), int(ground[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(opacity * a + (1 - opacity) * b):02x}" for a, b in pairs)


@pytest.fixture(scope="module")
def greys() -> dict[str, str]:
    """The greys of the installed Streamlit, by name: they are in no configuration."""
    scripts = Path(streamlit.__file__).parent / "static/static/js"
    found = (re.search(r"gray10:`(#[0-9a-f]{6})`.*gray90:`(#[0-9a-f]{6})`", one.read_text()) for one in scripts.glob("*.js"))
    light, dark = next(match.groups() for match in found if match)
    return {"light": dark, "dark": light}  # text on light ground is dark


def resolved(colour: str, appearance: str, greys: dict[str, str]) -> str:
    """What Streamlit makes of a figure's colour, seen on the theme's ground."""
    theme = CONFIG["theme"][appearance]
    themed = {**dict(zip(style.PALETTE, theme["chartCategoricalColors"], strict=True)), style.TEXT: greys[appearance]}
    solid = themed.get(colour[:7], colour[:7])
    return over(solid, theme["backgroundColor"], int(colour[7:] or "ff", 16) / 255)


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_captions_can_be_read(appearance: str) -> None:
    """Streamlit draws them in the text's colour at 60 %."""
    theme = CONFIG["theme"][appearance]
    grounds = [part[key] for part in (theme, theme["sidebar"]) for key in ("backgroundColor", "secondaryBackgroundColor")]
    for ground in grounds:
        assert contrast(over(theme["textColor"], ground, 0.6), ground) >= 4.5


def some_figures() -> list[go.Figure]:
    found = builders.comparison()
    runs = [builders.evaluation("a", 1, 2), builders.evaluation("b", 5, 6), builders.evaluation("c", 8, 9)]
    bars = plots.accuracy_bars(*runs, builders.TITLES)
    side_by_side = plots.comparison_bars([(str(place), runs[place % 3]) for place in range(8)], builders.TITLES)
    return [bars, side_by_side, plots.dirsim_bars(found), plots.drift_lines(found), plots.normalised_map(found, builders.TITLES)]


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_whiskers_stand_out_from_their_bars_and_from_the_ground(appearance: str, greys: dict[str, str]) -> None:
    ground, seen = CONFIG["theme"][appearance]["backgroundColor"], 0
    for figure in some_figures():
        for trace in (trace for trace in figure.data if trace.type == "bar"):
            whisker = resolved(trace.error_y.color, appearance, greys)
            fills, edges = trace.marker.color, trace.marker.line.color
            for fill, edge in zip(*([one] if isinstance(one, str) else one for one in (fills, edges)), strict=True):
                assert contrast(whisker, resolved(fill, appearance, greys)) >= 3, fill
                assert contrast(resolved(edge, appearance, greys), ground) >= 3, edge
                seen += 1
            assert contrast(whisker, ground) >= 3
    assert seen >= 3 + 8 + 2


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_ticks_and_titles_of_axes_can_be_read(appearance: str, greys: dict[str, str]) -> None:
    ground = CONFIG["theme"][appearance]["backgroundColor"]
    for figure in some_figures():
        layout = style.readable(figure).layout
        assert contrast(resolved(layout.font.color, appearance, greys), ground) >= 4.5
        for axis in (layout.xaxis, layout.yaxis):
            for colour in (axis.tickfont.color, axis.title.font.color):
                assert contrast(resolved(colour, appearance, greys), ground) >= 4.5


def test_lines_use_the_themes_colours_alone() -> None:
    known = {*style.PALETTE, style.TEXT, style.RAW}
    for figure in some_figures():
        for trace in figure.data:
            own = [trace.line.color] if trace.type == "scatter" else [trace.marker.line.color] if trace.type == "bar" else []
            assert {one for colours in own if colours for one in ([colours] if isinstance(colours, str) else colours)} <= known


def test_tasks_and_methods_keep_their_colours() -> None:
    titles = {name: name.title() for name in "abcdefgh"}
    colours = style.task_colours(list(titles), titles)
    assert len(set(colours.values())) == 8
    assert style.task_colours(["h", "d"], titles) == {"h": colours["h"], "d": colours["d"]}, "whichever are shown, in any order"
    looks = dict(zip(methods(), style.method_looks(list(methods())), strict=True))
    assert len(set(looks.values())) == len(looks), "no two methods look alike"
    assert style.method_looks(["ties", "dc_merge"]) == [looks["ties"], looks["dc_merge"]]
    twice = style.method_looks(["ties", "ties"])
    assert twice[0] != twice[1] and twice[0][0] == twice[1][0], "the same method, another dash"


def test_pictures_outside_of_the_app_have_the_light_theme(greys: dict[str, str]) -> None:
    assert list(style.LIGHT) == CONFIG["theme"]["light"]["chartCategoricalColors"]
    assert greys["light"] == style.on_white(style.TEXT)
