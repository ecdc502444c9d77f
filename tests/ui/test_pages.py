"""Every page on a set in a folder: small, without tasks to evaluate on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from streamlit.testing.v1 import AppTest

from dcmerge.checkpoints.seen import content_digest
from dcmerge.merging.recipe import Recipe
from dcmerge.methods import methods
from dcmerge.spectral.spectra import smooth
from dcmerge.ui.shell import PAGES as NAVIGATION
from tests.builders import write
from tests.ui.conftest import PAGES, TASKS, TOWER, Open

SPECTRA, ALIGNMENT, MERGE = "pages/1_Spectra.py", "pages/2_Alignment.py", "pages/3_Merge.py"


def figures(app: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def titles(app: AppTest) -> list[str]:
    """The figures' texts for those who cannot see them: the title, then the main values."""
    return [chart.proto.alt for chart in app.get("plotly_chart")]


def texts(app: AppTest) -> Iterator[str]:
    """Everything that is written on the page."""
    for kind in ("title", "header", "subheader", "markdown", "caption", "error", "warning", "info", "success", "code"):
        yield from (element.value for element in getattr(app, kind))


def smoothed_values(app: AppTest) -> list[float]:
    """The first task's smoothed spectrum as drawn."""
    facets = next(f for f in figures(app) if any("smoothed (" in t.get("name", "") for t in f["data"]))
    return next(trace["y"] for trace in facets["data"] if trace["name"].startswith("smoothed ("))


def test_the_sidebar_links_every_page() -> None:
    assert [path for path, _, _ in NAVIGATION] == list(PAGES)


@pytest.mark.parametrize("path", PAGES)
def test_a_folder_without_tasks_works_on_every_page(folder: Path, open_page: Open, path: str) -> None:
    app = open_page(path, set=f"folder:{folder.name}")
    assert not app.exception and not app.error
    assert len(app.title) == 1
    assert app.sidebar.selectbox(key="set").value == f"folder:{folder.name}"
    if path not in (MERGE, "pages/7_Diagnose.py"):  # there it stands beside the method, where that smooths
        assert app.sidebar.selectbox(key="smoothing").value == "auto"
    assert "rho" not in {slider.key for slider in app.slider}, "ρ is not shown where it changes nothing"
    for chart, figure in zip(app.get("plotly_chart"), figures(app), strict=True):
        assert chart.proto.alt and figure["data"]


def test_the_home_page_tells_what_is_loaded(folder: Path, open_page: Open) -> None:
    app = open_page("app.py", set=f"folder:{folder.name}")
    told = {metric.label: metric.value for metric in app.metric}
    assert told["Experts"] == "3" and told["Kind"] == "full" and told["Matrices"] == "7"
    assert any("has no images" in text for text in texts(app))
    assert any("fit together" in text for text in texts(app))


def test_smoothing_and_rho_redraw_the_spectra(folder: Path, open_page: Open) -> None:
    app = open_page(SPECTRA, set=f"folder:{folder.name}")
    raw = torch.tensor(smoothed_values(app))
    app.sidebar.selectbox(key="smoothing").set_value("linear").run()
    assert smoothed_values(app) == pytest.approx(smooth(raw, "linear", 5.0).tolist(), rel=1e-3)
    app.sidebar.slider(key="rho").set_value(1.5).run()
    assert smoothed_values(app) == pytest.approx(smooth(raw, "linear", 1.5).tolist(), rel=1e-3)
    assert not app.exception and app.query_params["rho"] == "1.5" and app.query_params["smoothing"] == "linear"


def test_another_matrix_and_another_energy_redraw_the_spectra(folder: Path, open_page: Open) -> None:
    app = open_page(SPECTRA, set=f"folder:{folder.name}")
    before = smoothed_values(app)
    app.sidebar.selectbox(key="layer").set_value("visual.transformer.resblocks.1.mlp.c_fc.weight").run()
    assert smoothed_values(app) != before
    assert any("MLP in, block 1" in text for text in texts(app))
    assert any("(sum of s²)" in title for title in titles(app))
    groups = {group.label: group for group in app.get("button_group")}
    groups["Energy is the"].set_value("sum of s (DC-Merge's smoothing)").run()
    groups["Components"].set_value("all").run()
    assert not app.exception and app.query_params["components"] == "all"
    assert any("(sum of s)" in title for title in titles(app))


def test_the_view_follows_from_page_to_page(folder: Path, open_page: Open) -> None:
    layer = "visual.transformer.resblocks.1.attn.out_proj.weight"
    app = open_page(SPECTRA, set=f"folder:{folder.name}", layer=layer, smoothing="linear", rho="7")
    for path in (ALIGNMENT, MERGE, SPECTRA):
        app.switch_page(path).run()
        assert not app.exception
        assert app.slider(key="rho").value == 7.0 and app.selectbox(key="smoothing").value == "linear"
        assert app.sidebar.selectbox(key="set").value == f"folder:{folder.name}"
    assert app.sidebar.selectbox(key="layer").value == layer


@pytest.mark.parametrize(
    "query",
    [
        {"rho": "1000000", "smoothing": "linear"},
        {"rho": "x", "smoothing": "linear"},
        {"smoothing": "steep"},
        {"layer": "no"},
        {"x": "1"},
    ],
)
def test_an_address_that_makes_no_sense_gives_the_defaults_and_says_so(
    folder: Path, open_page: Open, query: dict[str, str]
) -> None:
    app = open_page(SPECTRA, **{"set": f"folder:{folder.name}", **query})
    assert not app.exception
    if "rho" in query:
        assert app.sidebar.slider(key="rho").value == 5.0
    else:
        assert app.sidebar.selectbox(key="smoothing").value == "auto"
    told = [box.value for box in app.warning if "was asked for" in box.value]
    assert len(told) == (0 if "x" in query else 1) and all(app.query_params[key] == value for key, value in query.items())


@pytest.mark.parametrize("name", ["saved:colleague", "folder:/etc", "demo2", "<img src=x>"])
@pytest.mark.parametrize("page", ["app.py", SPECTRA, "pages/0_Load.py"])
def test_a_link_to_a_set_that_is_not_here_opens_no_other_one(folder: Path, open_page: Open, page: str, name: str) -> None:
    app = open_page(page, set=name, method="ties")
    assert not app.exception and app.query_params["set"] == name and app.query_params["method"] == "ties"
    assert app.sidebar.selectbox(key="set").value is None
    assert "is not known here" in app.error[0].value and not app.metric and not app.get("plotly_chart")
    app.button(key=f"offer.folder:{folder.name}").click().run()
    assert not app.exception and not app.error and app.query_params["set"] == f"folder:{folder.name}"
    assert app.query_params["method"] == "ties"


def test_an_unknown_method_is_told(folder: Path, open_page: Open) -> None:
    app = open_page("pages/3_Merge.py", set=f"folder:{folder.name}", method="colleagues_own")
    assert not app.exception and app.selectbox(key="method").value == "dc_merge"
    assert "Method\\: colleagues\\_own was asked for" in app.warning[0].value
    assert app.query_params["method"] == "colleagues_own"


def test_the_alignment_page_shows_another_task_side_and_method(folder: Path, open_page: Open) -> None:
    app = open_page(ALIGNMENT, set=f"folder:{folder.name}")
    before = figures(app)
    app.selectbox(key="task").set_value("digits")
    app.get("button_group")[0].set_value("inputs (V)")
    app.multiselect(key="methods").set_value(["ties"])
    app.selectbox(key="measure").set_value("Cosine").run()
    assert not app.exception and not app.error
    after = figures(app)
    for place in (0, 1, 2):
        assert before[place]["data"][0]["z"] != after[place]["data"][0]["z"]
    assert [trace["name"] for trace in after[4]["data"] if trace.get("showlegend", True)] == ["TIES-Merging"]
    app.multiselect(key="methods").set_value([]).run()
    assert not app.exception and any("at least one method" in text for text in texts(app))


@pytest.mark.parametrize("slug", [s for s, m in methods().items() if not {"lora", "images"} & set(m.needs) and not m.experts])
def test_every_method_brings_its_own_controls(folder: Path, open_page: Open, slug: str) -> None:
    app = open_page(MERGE, set=f"folder:{folder.name}", method=slug)
    assert not app.exception and not app.error
    kinds = ("slider", "select_slider", "selectbox", "number_input", "toggle")
    drawn = {widget.key for kind in kinds for widget in getattr(app.main, kind) if not widget.key.startswith("mix.")}
    own = {f"{slug}.{name}" for name in methods()[slug].parameters if name not in ("smoothing", "rho")}
    own |= {"smoothing"} if slug == "dc_merge" else set()
    assert drawn == {"method", f"{slug}.alpha", "save.dtype", "save.folder"} | own | (
        {"save.task"} if methods()[slug].modules else set()
    )
    assert any(methods()[slug].idea in text for text in texts(app))
    assert any(f"--method {slug}" in code.value for code in app.code)
    assert app.get("download_button")


def test_a_share_over_decades_is_a_slider_by_ratios(folder: Path, open_page: Open) -> None:
    keep = "dc_merge.keep"
    app = open_page(MERGE, set=f"folder:{folder.name}", method="dc_merge")
    slider = app.select_slider(key=keep)
    assert slider.value is None and list(slider.options)[:4] == ["auto", "0.0001", "0.00015", "0.0002"]
    slider.set_value(0.02).run()
    assert any("--set keep=0.02" in code.value for code in app.code) and "".join(app.query_params[keep]) == "0.02"
    app = open_page(MERGE, set=f"folder:{folder.name}", method="dc_merge", **{keep: "0.0123"})
    assert app.select_slider(key=keep).value == 0.0123 and not app.warning, "what a sweep found lies between the steps"
    app = open_page(MERGE, set=f"folder:{folder.name}", method="dc_merge", **{keep: "7"})
    assert app.select_slider(key=keep).value is None and any("7 was asked for" in box.value for box in app.warning)


def test_a_changed_parameter_is_in_the_command(folder: Path, open_page: Open) -> None:
    app = open_page(MERGE, set=f"folder:{folder.name}", method="dc_merge", smoothing="linear", rho="7")
    app.toggle(key="dc_merge.elect").set_value(False)
    app.slider(key="dc_merge.alpha").set_value(0.5).run()
    command, python, text = (code.value for code in app.code)
    for part in ("--set smoothing=linear", "--set rho=7", "--set elect=off", "--scale 0.5", "--scale-origin 'set by hand'"):
        assert part in command
    assert "smoothing='linear', rho=7.0, elect=False)" in python and "scale=0.5, scale_origin='set by hand')" in python
    recipe = Recipe.from_text(text)
    assert (recipe.method, recipe.scale, recipe.scale_origin) == ("dc_merge", 0.5, "set by hand")
    assert recipe.parameters["rho"] == 7 and recipe.parameters["elect"] is False
    for name, one in recipe.inputs.items():
        assert one == {"file": str(folder / f"{name}.safetensors"), "sha256": content_digest(folder / f"{name}.safetensors")}


def test_a_name_that_no_option_holds_is_explained_and_the_other_texts_stay(folder: Path, open_page: Open) -> None:
    (folder / "birds.safetensors").rename(folder / "a=b.safetensors")
    app = open_page(MERGE, set=f"folder:{folder.name}", method="ties")
    assert not app.exception and any("without = and spaces" in box.value for box in app.info)
    assert len(app.code) == 2 and "a=b" in app.code[0].value


def test_a_matrix_too_small_for_all_tasks_is_explained(folder: Path, open_page: Open) -> None:
    for name in ("base", *TASKS):
        write(folder / f"{name}.safetensors", {"thin.weight": torch.randn(8, 2), "wide.weight": torch.randn(8, 9)})
    for path in (SPECTRA, ALIGNMENT):
        app = open_page(path, set=f"folder:{folder.name}", layer="thin.weight")
        assert not app.exception and not app.error
        assert any("too small to give every task a component" in text for text in texts(app))


def test_names_from_files_are_text_not_markdown(folder: Path, open_page: Open) -> None:
    odd = "block.0.[here](http://example.org) **bold** $x$"
    for seed, name in enumerate(("base", *TASKS)):
        write(folder / f"{name}.safetensors", {odd: torch.randn(8, 9, generator=torch.Generator().manual_seed(seed))})
    for path in (SPECTRA, ALIGNMENT):
        app = open_page(path, set=f"folder:{folder.name}")
        assert not app.exception
        assert not any(re.search(r"(?<!\\)(\]\(http|\*\*bold|\$x)", text) for text in texts(app))


def test_there_is_no_set_of_which_no_page_can_be_drawn(folder: Path, open_page: Open) -> None:
    """A set of vectors alone has no spectra, and can be merged all the same."""
    for name in ("base", *TASKS):
        write(folder / f"{name}.safetensors", {"only.bias": torch.randn(8)})
    for path in PAGES:
        app = open_page(path, set=f"folder:{folder.name}")
        assert not app.exception
        assert len(app.error) <= (path in (SPECTRA, ALIGNMENT, "pages/5_Tune.py"))
    assert len(TOWER) == 10  # what the home page's figures above rest on


def test_what_cannot_merge_the_set_is_not_offered_and_the_help_says_why(folder: Path, open_page: Open) -> None:
    app = open_page(MERGE, set=f"folder:{folder.name}", method="knots")
    chooser = app.selectbox(key="method")
    assert chooser.value == "dc_merge" and methods()["knots"].title not in chooser.options
    assert "KnOTS-TIES needs LoRA experts, got full fine-tuning." in chooser.help


@pytest.mark.parametrize("path", [SPECTRA, ALIGNMENT])
def test_every_chart_can_be_taken_along_and_tells_its_values(folder: Path, open_page: Open, path: str) -> None:
    app = open_page(path, set=f"folder:{folder.name}")
    charts, tables = app.get("plotly_chart"), [one for one in app.get("download_button") if one.proto.label == "Values"]
    assert charts and len(tables) == len(charts)
    for chart in charts:
        assert re.search(r"\. .*(lowest|highest|at) ", chart.proto.alt), "the values follow the title"
        saved = json.loads(chart.proto.config)["toImageButtonOptions"]
        assert saved["format"] == "svg" and re.fullmatch(r"[a-z0-9-]+", saved["filename"])
