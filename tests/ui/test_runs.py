"""Runs on the pages: they outlive a session, are found again, compared and pinned, and a damaged store takes no page down."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dcmerge.runs import RunStore, SetId
from dcmerge.ui.text import interval
from tests.runs.builders import a_run
from tests.ui.conftest import Open
from tests.ui.test_pages import texts

RUNS, MERGE = "pages/8_Runs.py", "pages/3_Merge.py"
ALIKE = {"set": SetId("demo", "d" * 32)}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.setenv("DCMERGE_JOBS", str(tmp_path / "state"))
    return RunStore()


def said(app: AppTest) -> str:
    return "\n".join(texts(app))


def test_without_runs_the_page_says_where_they_come_from(open_page: Open) -> None:
    app = open_page(RUNS)
    assert not app.exception and "There is no run yet" in said(app)


def test_runs_are_filtered_and_grouped(open_page: Open, store: RunStore) -> None:
    store.record(a_run("1111", "11"))
    dare = store.record(a_run("1100", "10", method="dare", kind="comparison", group="20260101-compare"))
    store.update(dare, name="my dare", starred=True)
    app = open_page(RUNS)
    assert not app.exception
    assert sorted(app.dataframe[0].value["method"]) == ["DARE", "TIES-Merging"]
    for change in (
        lambda page: page.text_input(key="runs.text").set_value("MY d"),
        lambda page: page.selectbox(key="runs.kind").set_value("comparison"),
        lambda page: page.selectbox(key="runs.group").set_value("20260101-compare"),
        lambda page: page.toggle(key="runs.starred").set_value(True),
    ):
        page = open_page(RUNS)
        change(page).run()
        assert not page.exception and list(page.dataframe[0].value["name"]) == ["my dare"]
    app.text_input(key="runs.text").set_value("nothing like it").run()
    assert "No run matches" in said(app)
    grouped = open_page(RUNS, **{"runs.by": "method"})
    summary = grouped.dataframe[0].value
    assert dict(zip(summary["method"], summary["best"], strict=True)) == {"DARE": 50.0, "TIES-Merging": 100.0}


def test_every_live_look_is_kept_once_and_shown_against_the_pinned_run(open_page: Open, store: RunStore) -> None:
    app = open_page(MERGE, method="average", quick="25")
    assert not app.exception and "No run is pinned" in said(app)
    [look] = store.find()
    assert (look.kind, look.method, look.alpha, look.evaluation.images) == ("look", "average", 1.0, "25")
    next(button for button in app.button if button.label == "Pin this").click().run()
    assert not app.exception and "This is the pinned run" in said(app)
    app.slider(key="average.alpha").set_value(0.5).run()
    assert not app.exception
    half = store.find()[0]
    assert half.alpha == 0.5 and len(store.find()) == 2
    expected = interval(store.paired(half, look)).replace("+", "\\+").replace("[", "\\[").replace("]", "\\]")
    assert f"**{expected}** points against the pinned run" in said(app)
    again = open_page(MERGE, method="average", quick="25", **{"average.alpha": "0.5"})  # another session
    assert f"**{expected}** points against the pinned run" in said(again) and len(store.find()) == 2
    other = open_page(MERGE, method="average", quick="50")
    assert "was measured on other images" in said(other)
    next(button for button in other.button if button.label == "Unpin").click().run()
    assert "No run is pinned" in said(other)


@pytest.mark.parametrize("path", [RUNS, MERGE])
def test_a_damaged_store_is_one_sentence_on_the_page(open_page: Open, store: RunStore, path: str) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(b"not a database at all " * 100)
    app = open_page(path, method="average", quick="25")
    assert not app.exception and "damaged or foreign" in said(app)
    assert path == RUNS or any(metric.label == "Mean accuracy" for metric in app.metric)


def test_hostile_texts_of_a_run_are_shown_as_text(open_page: Open, store: RunStore) -> None:
    store.record(a_run(name="**bold** <script>alert(1)</script>", method="[link](javascript:x)", note="$x$"))
    app = open_page(RUNS, **{"runs.by": "method"})
    assert not app.exception and "alert" not in said(app)
