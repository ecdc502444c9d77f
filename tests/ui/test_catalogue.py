"""The Methods page: every method with its needs, parameters and numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcmerge.methods import methods
from dcmerge.ui import catalogue
from tests.ui.conftest import Open

METHODS = "pages/6_Methods.py"


def test_every_method_is_shown_with_its_formula_and_parameters(folder: Path, open_page: Open) -> None:
    app = open_page(METHODS, set=f"folder:{folder.name}")
    assert not app.exception and not app.error
    overview = app.dataframe[0].value
    titles = {m.title: m for m in methods().values()}
    assert sorted(overview["method"]) == sorted(titles)
    assert [e.label for e in app.main.expander] == list(overview["method"])
    assert [f.value.strip("$\n ") for f in app.latex] == [titles[name].formula for name in overview["method"]]
    shown = {name.replace("\\", "") for table in app.table for name in table.value["name"]}
    assert shown == {name for m in methods().values() for name in m.parameters}


def test_what_cannot_merge_the_set_says_why_and_can_be_left_out(folder: Path, open_page: Open) -> None:
    app = open_page(METHODS, set=f"folder:{folder.name}")
    overview = app.dataframe[0].value.set_index("method")
    assert "needs LoRA experts" in overview.loc["KnOTS-TIES", "this set"]
    assert overview.loc["DC-Merge", "this set"] == "can be merged"
    app.toggle(key="fits").set_value(True).run()
    assert "KnOTS-TIES" not in list(app.dataframe[0].value["method"])


def test_the_filter_by_needs(folder: Path, open_page: Open) -> None:
    app = open_page(METHODS, set=f"folder:{folder.name}")
    app.multiselect(key="needs").set_value([]).run()
    left = [m.title for m in methods().values() if m.needs == ("weights",)]
    assert list(app.dataframe[0].value["method"]) == left and not app.exception


def test_without_our_numbers_it_says_so(folder: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "demo_results", lambda: None)
    app = open_page(METHODS, set=f"folder:{folder.name}")
    assert not app.exception
    assert any("not made yet" in caption.value for caption in app.caption)


def test_words_find_methods_by_name_idea_and_source(folder: Path, open_page: Open) -> None:
    app = open_page(METHODS).run()
    assert [header.value for header in app.header] == [
        "From weights alone",
        "For adapters",
        "They look at images",
        "They learn, step by step",
    ]
    (search,) = (box for box in app.text_input if box.label == "Search")
    search.set_value("marczak 2025").run()
    assert not app.exception and set(app.dataframe[0].value["method"]) == {"Iso-C", "Iso-CTS"}
    assert [header.value for header in app.header] == ["From weights alone"]
    search.set_value("nothing of the kind").run()
    assert not app.dataframe and "No method has all of these words." in [box.value for box in app.info]
